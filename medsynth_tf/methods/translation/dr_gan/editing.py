"""Edit what an image is made from: add, remove, move and scatter lesions, then sample photographs at a grade."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.names import look_up
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.methods.translation.dr_gan.serving import to_pixels

if TYPE_CHECKING:
    from medsynth_tf.methods.translation.dr_gan.model import DRGAN

_REACH = 0.42  # scattered lesions' centres lie within this distance of the image's centre, as a share of its side


@dataclasses.dataclass(frozen=True)
class Masks:
    """The condition of one image. Every change gives new masks and leaves these as they are.

    Attributes:
        model: the method that images will be sampled from.
        planes: float32 [S, S, K] in [0, 1].
    """

    model: DRGAN
    planes: np.ndarray

    @classmethod
    def of(cls, model: DRGAN, label_map: np.ndarray) -> Masks:
        """The masks of a label map uint8 [S, S].

        Raises:
            DataError: it is of another size.
        """
        size = model.config.image_size
        if label_map.shape != (size, size):
            raise DataError(f"label map of {list(label_map.shape)}: this model takes {size}×{size}")
        return cls(model, model.planes(tf.constant(label_map[np.newaxis]))[0].numpy())

    def plane(self, lesion: str) -> np.ndarray:
        """One lesion's mask, float32 [S, S].

        Raises:
            UnknownNameError: no such lesion channel; the nearest is named.
        """
        return self.planes[..., self._channel(lesion)]

    def add(self, lesion: str, centre: tuple[float, float], radius: float) -> Masks:
        """With a round lesion, soft over a pixel at its edge; centre (row, column) and radius in pixels."""
        rows, columns = np.indices(self.planes.shape[:2])
        distance = np.hypot(rows - centre[0], columns - centre[1])
        blob = np.clip(radius - distance + 0.5, 0.0, 1.0).astype(np.float32)
        return self._with(lesion, np.maximum(self.plane(lesion), blob))

    def remove(self, lesion: str, at: tuple[int, int] | None = None) -> Masks:
        """Without the lesion that covers a pixel (row, column), or without any of its kind.

        Raises:
            DataError: no lesion of the kind covers the pixel.
        """
        plane = self.plane(lesion)
        return self._with(lesion, np.where(self._component(lesion, at), 0.0, plane) if at is not None else np.zeros_like(plane))

    def move(self, lesion: str, at: tuple[int, int], by: tuple[int, int]) -> Masks:
        """With the lesion that covers a pixel shifted by (rows, columns); what leaves the image is lost.

        Raises:
            DataError: no lesion of the kind covers the pixel.
        """
        component = self._component(lesion, at)
        shifted = ndimage.shift(np.where(component, self.plane(lesion), 0.0), by, order=0)
        return self._with(lesion, np.maximum(np.where(component, 0.0, self.plane(lesion)), shifted))

    def scatter(self, lesion: str, count: int, radii: tuple[float, float], seed: int) -> Masks:
        """With so many more lesions at random places of the field of view, radii drawn between two numbers of pixels."""
        rng = numpy_generator(seed, "scatter", lesion)
        size, masks = len(self.planes), self
        for _ in range(count):
            distance, angle = _REACH * size * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
            centre = (size - 1) / 2 + distance * np.array([np.sin(angle), np.cos(angle)])
            masks = masks.add(lesion, (float(centre[0]), float(centre[1])), rng.uniform(*radii))
        return masks

    def sample(self, seeds: Sequence[int], grade: int | None = None) -> np.ndarray:
        """Photographs uint8 [N, S, S, 3], one a seed; without a grade, the encoder reads it off the masks.

        Raises:
            DataError: there is no such grade.
        """
        grades = self.model.config.grades
        if grade is not None and not 0 <= grade < grades:
            raise DataError(f"grade {grade}: this model has 0 … {grades - 1}")
        planes = tf.repeat(tf.constant(self.planes[np.newaxis]), len(seeds), axis=0)
        wanted = None if grade is None else tf.fill([len(seeds)], tf.constant(grade, tf.int64))
        condition = self.model.condition({"planes": planes})
        with self.model.averaged_weights():
            made = self.model.generate(condition, wanted, tf.constant(list(seeds), tf.int64))
        return to_pixels(made["image"]).numpy()

    def _channel(self, lesion: str) -> int:
        config = self.model.config
        return look_up({name: config.channels.index(name) for name in config.lesions}, lesion, "lesion channel")

    def _with(self, lesion: str, plane: np.ndarray) -> Masks:
        planes = self.planes.copy()
        planes[..., self._channel(lesion)] = plane
        return dataclasses.replace(self, planes=planes)

    def _component(self, lesion: str, at: tuple[int, int]) -> np.ndarray:
        labelled, _ = ndimage.label(self.plane(lesion) > 0)
        if labelled[at] == 0:
            raise DataError(f"no {lesion} at row {at[0]}, column {at[1]}")
        return labelled == labelled[at]
