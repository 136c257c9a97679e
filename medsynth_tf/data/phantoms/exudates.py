"""Small eyes with hard exudates, and bright spots that are none: a task that a few real pairs do not settle.

The phantom of the semantic_retina experiment: whether synthetic pairs help a segmenter of exudates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

EXUDATES_BY_GRADE = (2, 5, 10)
_LABELS = {"retina": 0, "optic disc": 1, "hard exudate": 2, "outside": 255}
_SIDE = 48.0  # lengths below are in pixels of an image of this side
_DISC_COLOUR, _EXUDATE_COLOUR = np.array([0.95, 0.80, 0.50]), np.array([0.92, 0.85, 0.45])


@dataclasses.dataclass(frozen=True)
class ExudateOptions(Settings):
    """Options of `phantom:exudates`."""

    size: int = setting(48, help="side of the images in pixels", minimum=32, maximum=1280)
    seed: int = setting(0, help="which series of eyes", minimum=0)


class ExudatePhantom:
    """One eye a patient; `label` is the grade 0 to 2, with 2, 5 or 10 exudates.

    Label map: 0 retina, 1 optic disc, 2 hard exudate, 255 outside.
    """

    options_class = ExudateOptions

    def __init__(self, options: ExudateOptions):
        self.options = options
        axis = (np.arange(options.size) + 0.5) * _SIDE / options.size - _SIDE / 2
        self._x, self._y = np.meshgrid(axis, axis)

    def patient(self, index: int) -> int:
        """Each eye is another patient's."""
        return index

    def label(self, index: int) -> int:
        """The grade, uniform."""
        return int(numpy_generator(self.options.seed, "exudates/grade", index).integers(len(EXUDATES_BY_GRADE)))

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return _LABELS

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 3], `mask` uint8 [size, size], `modality` OP."""
        rng = numpy_generator(self.options.seed, "exudates/eye", index)
        x, y = self._x, self._y
        radius = np.hypot(x, y)
        inside = radius <= _SIDE / 2 - 1
        side = rng.choice([-1.0, 1.0])
        disc_centre, disc_radius = np.array([side * rng.uniform(12, 15), rng.uniform(-3, 3)]), rng.uniform(4.0, 5.5)
        disc = np.hypot(x - disc_centre[0], y - disc_centre[1]) <= disc_radius
        image = np.array([0.62, 0.32, 0.14]) * rng.uniform(0.8, 1.2) * np.ones((*x.shape, 3))
        image *= (1.05 - 0.3 * (radius / (_SIDE / 2)) ** 2)[..., None]
        texture = ndimage.gaussian_filter(rng.standard_normal(x.shape), 3.0 * self.options.size / _SIDE)
        image *= (1.0 + 0.08 * texture / texture.std())[..., None]
        image[disc] = 0.15 * image[disc] + 0.85 * _DISC_COLOUR
        for _ in range(rng.integers(3, 6)):
            image *= 1.0 - self._vessel(rng, disc_centre)[..., None] * np.array([0.25, 0.45, 0.35])
        exudates = np.zeros(x.shape, bool)
        for _ in range(EXUDATES_BY_GRADE[self.label(index)]):
            shape = self._ellipse(rng, disc_centre, disc_radius, 0.9, 2.6)
            strength = rng.uniform(0.35, 0.8)
            image[shape] = (1.0 - strength) * image[shape] + strength * _EXUDATE_COLOUR
            exudates |= shape
        for _ in range(rng.integers(0, 4)):  # reflexes, which are no lesions: round, soft and without the yellow
            centre = self._place(rng, disc_centre, disc_radius)
            spot = np.exp(-0.5 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / rng.uniform(0.8, 1.6) ** 2)
            image += rng.uniform(0.15, 0.35) * (spot * ~exudates)[..., None]
        image += rng.normal(0, 0.03, image.shape)
        image *= inside[..., None]
        mask = np.where(exudates, 2, np.where(disc, 1, 0)).astype(np.uint8)
        mask[~inside] = 255
        return {"image": np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), "mask": mask, "modality": "OP"}

    def _vessel(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """A bent line from the optic disc across the eye: coverage in [0, 1], float64 [size, size]."""
        angle = rng.uniform(0, 2 * np.pi)
        along = (self._x - start[0]) * np.cos(angle) + (self._y - start[1]) * np.sin(angle)
        across = (self._y - start[1]) * np.cos(angle) - (self._x - start[0]) * np.sin(angle)
        bend = rng.uniform(1.0, 3.0) * np.sin(rng.uniform(0.1, 0.25) * along)
        return np.exp(-(((across - bend) / rng.uniform(0.6, 1.0)) ** 2)) * (along > 0)

    def _place(self, rng: np.random.Generator, disc: np.ndarray, disc_radius: float) -> np.ndarray:
        """A point of the retina clear of the optic disc and of the rim."""
        while True:
            point = rng.uniform(-_SIDE / 2, _SIDE / 2, 2)
            if np.hypot(*point) < _SIDE / 2 - 4 and np.hypot(*(point - disc)) > disc_radius + 3:
                return point

    def _ellipse(
        self, rng: np.random.Generator, disc: np.ndarray, disc_radius: float, smallest: float, largest: float
    ) -> np.ndarray:
        centre, axes, turn = self._place(rng, disc, disc_radius), rng.uniform(smallest, largest, 2), rng.uniform(0, np.pi)
        dx, dy = self._x - centre[0], self._y - centre[1]
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
