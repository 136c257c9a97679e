"""Stained tissue sections: nuclei of three kinds in stroma, in the colours of haematoxylin and eosin, which differ by laboratory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

EPITHELIAL, LYMPHOCYTE, SPINDLE = 1, 2, 3
# Optical density of red, green and blue of each stain (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001)
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
_REFERENCE = 96.0  # lengths below are in pixels of an image of this side
_RADII = {EPITHELIAL: (4.5, 6.5), LYMPHOCYTE: (2.6, 3.2), SPINDLE: (2.0, 2.6)}
_STRETCH = {EPITHELIAL: (1.0, 1.35), LYMPHOCYTE: (1.0, 1.1), SPINDLE: (2.4, 3.4)}
_DENSITY = {EPITHELIAL: 0.75, LYMPHOCYTE: 1.25, SPINDLE: 0.95}
_SHARES = ((0.25, 0.25, 0.5), (0.75, 0.15, 0.1))  # of epithelial, lymphocyte and spindle nuclei, by class
_COUNTS = ((14, 26), (30, 48))


@dataclasses.dataclass(frozen=True)
class CellsOptions(Settings):
    """Options of `phantom:cells`."""

    size: int = setting(96, help="side of the images in pixels", minimum=32, maximum=1024)
    seed: int = setting(0, help="which series of images", minimum=0)
    labs: int = setting(1, help="laboratories, each with stains of its own; image i is of laboratory i modulo this", minimum=1)


class CellsPhantom:
    """Tiles, eight a patient; label 0 stroma, 1 tumour, which has more, larger and more epithelial nuclei.

    Image uint8 [size, size, 3]. Label map: 0 none, 1 epithelial, 2 lymphocyte, 3 spindle nuclei; nuclei do not touch.
    """

    options_class = CellsOptions

    def __init__(self, options: CellsOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """Eight tiles each."""
        return index // 8

    def label(self, index: int) -> int:
        """Stroma and tumour, patient by patient in turn."""
        return self.patient(index) % 2

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"none": 0, "epithelial": EPITHELIAL, "lymphocyte": LYMPHOCYTE, "spindle": SPINDLE}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 3], `mask` uint8 [size, size]."""
        rng = numpy_generator(self.options.seed, "cells", index)
        size = self.options.size
        scale = size / _REFERENCE
        fibres = _smooth(rng, size, (6.0 * scale, 1.2 * scale), rng.uniform(-40, 40))
        eosin = 0.45 + 0.12 * fibres + 0.06 * _smooth(rng, size, (2.0 * scale, 2.0 * scale), 0.0)
        haematoxylin = np.full([size, size], 0.06)
        mask = np.zeros([size, size], np.uint8)
        free = np.ones([size, size], bool)
        label = self.label(index)
        for _ in range(rng.integers(*_COUNTS[label])):
            self._nucleus(rng, scale, label, mask, free, haematoxylin)
        lab = numpy_generator(self.options.seed, "laboratory", index % self.options.labs)
        stains = [np.abs(stain + lab.normal(0.0, 0.07, 3)) for stain in (HAEMATOXYLIN, EOSIN)]
        strengths = lab.uniform(0.8, 1.3, 2) * rng.uniform(0.9, 1.1, 2)
        density = sum(s * amount[..., None] * stain for s, amount, stain in zip(strengths, (haematoxylin, eosin), stains))
        image = 245.0 * np.exp(-np.maximum(density, 0.0)) + rng.normal(0.0, 2.0, [size, size, 3])
        return {"image": np.clip(np.rint(image), 0, 255).astype(np.uint8), "mask": mask}

    @staticmethod
    def _nucleus(
        rng: np.random.Generator, scale: float, label: int, mask: np.ndarray, free: np.ndarray, haematoxylin: np.ndarray
    ) -> None:
        """Adds one where there is room; a nucleus that finds none in ten tries is left out."""
        kind = 1 + int(rng.choice(3, p=_SHARES[label]))
        radius, stretch = rng.uniform(*_RADII[kind]) * scale, rng.uniform(*_STRETCH[kind])
        if kind == EPITHELIAL and label:
            radius *= 1.2
        angle = rng.uniform(0, np.pi)
        wave, phase = rng.uniform(0.0, 0.08), rng.uniform(0, 2 * np.pi)
        for _ in range(10):
            centre = rng.uniform(0, mask.shape[0], 2)
            y, x = (np.arange(mask.shape[0])[:, None] - centre[0], np.arange(mask.shape[0])[None] - centre[1])
            along, across = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
            distance = np.hypot(along / stretch, across) / (radius * (1 + wave * np.cos(3 * np.arctan2(across, along) + phase)))
            inside = distance < 1
            if inside.any() and free[inside].all():
                break
        else:
            return
        mask[inside] = kind
        free[distance < 1 + 2.0 * scale / radius] = False
        chromatin = 1.0 + 0.25 * _smooth(rng, mask.shape[0], (1.2 * scale, 1.2 * scale), 0.0)
        soft = np.clip((1.0 - distance) * radius + 0.5, 0.0, 1.0)
        haematoxylin += soft * _DENSITY[kind] * np.clip(chromatin, 0.4, 1.8)


def _smooth(rng: np.random.Generator, size: int, deviations: tuple[float, float], degrees: float) -> np.ndarray:
    """Gaussian noise of deviation 1, smoothed more along one direction than across."""
    side = int(1.5 * size) if degrees else size
    field = ndimage.gaussian_filter(rng.normal(size=[side, side]), deviations)
    if degrees:
        start = (side - size) // 2
        field = ndimage.rotate(field, degrees, reshape=False, order=1)[start : start + size, start : start + size]
    return field / field.std()
