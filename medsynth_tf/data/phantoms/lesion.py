"""Lung lesions cut out of CT slices: ragged blobs with texture and a darker necrotic core on black, in one class or two.

For claims on the judgement of generators: images of another seed are what a perfect one would draw. Image i depends on (seed, i)
alone and shows the same outline at every size.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

SIDE = 48  # lengths below are pixels of an image of this side
WANDER = 2.0  # of the centre
RADII = (8.0, 16.0)
HARMONICS = np.arange(2, 6)
RAGGEDNESS = 0.12
SHARPNESS = 1.5  # of the edge
TEXTURE_BLUR, TEXTURE = 1.5, 0.08
CORE_RADII = (0.2, 0.6)  # of the lesion's
TONE, CORE_DEPTH = 0.6, 0.25
CORE_SHARES = ((0.0, 1.0),), ((0.0, 0.4), (0.8, 1.6))  # of CORE_DEPTH, by number of classes, then class
LEAST_SLICE = 0.7  # smallest radius of a patient's slices, of the largest
LABELS = {"outside": 0, "lesion": 1, "core": 2}


@dataclasses.dataclass(frozen=True)
class LesionOptions(Settings):
    """Options of `phantom:lesion`."""

    size: int = setting(SIDE, help="side of the images in pixels", minimum=16, maximum=512)
    seed: int = setting(0, help="which series of patients", minimum=0)
    classes: int = setting(1, help="2: shallow (label 0) and deep necrotic cores (label 1), by patient", minimum=1, maximum=2)
    slices: int = setting(1, help="images of a patient, of one outline at several radii", minimum=1)


class LesionPhantom:
    """One lesion a patient, in `slices` images. Image uint8 [size, size, 1]; label map 0 outside, 1 lesion, 2 core."""

    options_class = LesionOptions

    def __init__(self, options: LesionOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """Slices of a patient follow one another."""
        return index // self.options.slices

    def label(self, index: int) -> int:
        """The patients' classes take turns."""
        return self.patient(index) % self.options.classes

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return LABELS

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 1], `mask` uint8 [size, size], `modality` CT."""
        options = self.options
        lesion = numpy_generator(options.seed, "lesion/patient", self.patient(index))
        radius = lesion.uniform(*RADII)
        amplitudes = lesion.uniform(0, RAGGEDNESS, len(HARMONICS))
        phases = lesion.uniform(0, 2 * np.pi, len(HARMONICS))
        core_radius = lesion.uniform(*CORE_RADII)
        depth = CORE_DEPTH * lesion.uniform(*CORE_SHARES[options.classes - 1][self.label(index)])
        own = numpy_generator(options.seed, "lesion/slice", index)
        centre = SIDE / 2 + own.uniform(-WANDER, WANDER, 2)
        if options.slices > 1:
            radius *= own.uniform(LEAST_SLICE, 1.0)
        scale = SIDE / options.size
        axis = np.arange(options.size) * scale
        rows, columns = np.meshgrid(axis - centre[0], axis - centre[1], indexing="ij")
        distance, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
        waves = np.cos(HARMONICS * angle[..., np.newaxis] + phases)
        boundary = radius * (1.0 + waves @ amplitudes)
        inside = _sigmoid(SHARPNESS * (boundary - distance))
        texture = ndimage.gaussian_filter(own.normal(size=[options.size] * 2), TEXTURE_BLUR / scale)
        core = _sigmoid(SHARPNESS * (core_radius * radius - distance))
        values = inside * (TONE + TEXTURE * texture / texture.std() - depth * core)
        mask = np.where(inside >= 0.5, np.where(core >= 0.5, LABELS["core"], LABELS["lesion"]), LABELS["outside"])
        image = np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
        return {"image": image[..., np.newaxis], "mask": mask.astype(np.uint8), "modality": "CT"}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))
