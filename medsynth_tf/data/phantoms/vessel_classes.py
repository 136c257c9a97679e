"""Small discs with curved vessels; the class is how tortuous and how wide they are, so it is visible in every part of the image."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

TORTUOSITY = (0.8, 2.2)
WIDTH = (0.8, 1.5)
_REFERENCE = 32.0  # lengths below are in pixels of an image of this side
_LABELS = {"retina": 0, "vessel": 1, "outside": 255}


@dataclasses.dataclass(frozen=True)
class VesselClassesOptions(Settings):
    """Options of `phantom:vessel_classes`."""

    size: int = setting(32, help="side of the images in pixels", minimum=16, maximum=1024)
    seed: int = setting(0, help="which series of images", minimum=0)


class VesselClassesPhantom:
    """One image a patient; `label` is 2·(tortuous) + (wide), 0 to 3 in turn.

    Image uint8 [size, size, 1]: a disc with 3 to 5 sinusoidal vessels, uneven light and noise. Label map: 0 retina, 1 vessel,
    255 outside.
    """

    options_class = VesselClassesOptions

    def __init__(self, options: VesselClassesOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One image each."""
        return index

    def label(self, index: int) -> int:
        """The classes in turn."""
        return index % 4

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return _LABELS

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 1], `mask` uint8 [size, size], `modality` OP."""
        rng = numpy_generator(self.options.seed, "vessel_classes", index)
        size, label = self.options.size, self.label(index)
        tortuosity, width = TORTUOSITY[label // 2], WIDTH[label % 2]
        axis = (np.arange(size) - (size - 1) / 2) * (_REFERENCE / size)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        inside = np.hypot(x, y) <= 15.0

        count = rng.integers(3, 6)
        direction, phase = rng.uniform(0, 2 * np.pi, (2, count, 1, 1))
        offset = rng.uniform(-9, 9, (count, 1, 1))
        swing = tortuosity * rng.uniform(0.7, 1.3, (count, 1, 1))
        frequency = rng.uniform(0.4, 0.75, (count, 1, 1))
        breadth = width * rng.uniform(0.75, 1.25, (count, 1, 1))
        amplitude = rng.uniform(0.5, 1.0, (count, 1, 1))
        along = x * np.cos(direction) + y * np.sin(direction)
        across = y * np.cos(direction) - x * np.sin(direction)
        distance = across - offset - swing * np.sin(frequency * along + phase)
        vessels = (amplitude * np.exp(-((distance / breadth) ** 2))).max(0)

        slope = rng.uniform(0, 2 * np.pi)
        light = 0.15 * (x * np.cos(slope) + y * np.sin(slope)) / 15.0
        image = inside * (0.35 + light + 0.5 * vessels) + rng.normal(0, 0.06, (size, size))
        pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
        near = (np.abs(distance) < breadth).any(0)
        mask = np.where(inside, near.astype(np.uint8), np.uint8(_LABELS["outside"]))
        return {"image": pixels[..., np.newaxis], "mask": mask, "modality": "OP"}
