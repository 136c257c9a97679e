"""Ultrasound of vessels in layered tissue, as four machines show it: the same anatomy in unlike textures.

An image is clip(g·j·t^γ·(1 + c·n)·depth, 0, 1): t the clean tissue, n speckle of unit deviation, j a gain between 0.9 and 1.1, and
depth = 1 - d·row/height.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

_SIDE = 48.0  # lengths below are in pixels of an image of this side
_TISSUE, _VESSEL = 0.6, 0.08


class Style(NamedTuple):
    """How a machine shows tissue: gain g, exponent γ, speckle's contrast c and size (rows, columns), attenuation d with depth."""

    gain: float
    gamma: float
    contrast: float
    speckle: tuple[float, float]
    attenuation: float


STYLES = (
    Style(0.75, 1.0, 0.05, (1.0, 1.0), 0.0),  # smooth, as a gel phantom
    Style(0.6, 1.3, 0.55, (0.5, 0.5), 0.3),
    Style(0.85, 0.7, 0.5, (1.6, 1.6), 0.0),
    Style(0.5, 1.8, 0.25, (0.3, 2.5), 0.6),
)


@dataclasses.dataclass(frozen=True)
class UltrasoundOptions(Settings):
    """Options of `phantom:ultrasound`."""

    size: int = setting(48, help="side of the images in pixels", minimum=16, maximum=1024)
    seed: int = setting(0, help="which series of images", minimum=0)
    style: int = setting(0, help="1 … 4: all images in this style; 0: the four in turn", minimum=0, maximum=len(STYLES))


class UltrasoundPhantom:
    """One image a patient; `label` is the style, from 0. Image i shows the same anatomy in every style.

    Image uint8 [size, size, 1]. Label map: 0 tissue, 1 vessel.
    """

    options_class = UltrasoundOptions

    def __init__(self, options: UltrasoundOptions):
        self.options = options
        axis = (np.arange(options.size) + 0.5) * _SIDE / options.size - 0.5
        self._rows, self._columns = np.meshgrid(axis, axis, indexing="ij")

    def patient(self, index: int) -> int:
        """One image each."""
        return index

    def label(self, index: int) -> int:
        """The style, from 0."""
        return index % len(STYLES) if self.options.style == 0 else self.options.style - 1

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"tissue": 0, "vessel": 1}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 1], `mask` uint8 [size, size], `modality` US."""
        tissue, vessel = self._anatomy(numpy_generator(self.options.seed, "ultrasound/anatomy", index))
        kind = self.label(index)
        image = self._shown(tissue, STYLES[kind], numpy_generator(self.options.seed, "ultrasound/image", index, kind))
        return {
            "image": np.rint(255 * image).astype(np.uint8)[..., np.newaxis],
            "mask": vessel.astype(np.uint8),
            "modality": "US",
        }

    def _anatomy(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Clean tissue in [0, 1], and where the vessels are."""
        rows, columns = self._rows, self._columns
        tissue = np.full(rows.shape, _TISSUE)
        for _ in range(rng.integers(1, 4)):
            slope, at = rng.uniform(-0.3, 0.3), rng.uniform(4, 44)
            height, width = rng.uniform(0.15, 0.35), rng.uniform(1, 3)
            distance = rows - at - slope * (columns - _SIDE / 2)
            tissue += height * np.exp(-0.5 * (distance / width) ** 2)
        vessel = np.zeros(rows.shape, bool)
        for _ in range(rng.integers(1, 3)):
            centre, radii = rng.uniform(12, 36, 2), rng.uniform(5, 9, 2)
            vessel |= ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1.0
        tissue[vessel] = _VESSEL
        return np.clip(ndimage.gaussian_filter(tissue, 0.7 * self._scale), 0.0, 1.0), vessel

    def _shown(self, tissue: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=tissue.shape), [s * self._scale for s in style.speckle])
        speckle = (noise - noise.mean()) / noise.std()
        depth = 1.0 - style.attenuation * np.arange(len(tissue))[:, np.newaxis] / len(tissue)
        gain = style.gain * rng.uniform(0.9, 1.1)
        return np.clip(gain * tissue**style.gamma * (1.0 + style.contrast * speckle) * depth, 0.0, 1.0)

    @property
    def _scale(self) -> float:
        return self.options.size / _SIDE
