"""Heads as volumes, in magnetic resonance or computed tomography: head i is the same in both, voxel by voxel.

Bone and air are both dark in MR and far apart in CT, so a network that translates one into the other must know where it is.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

AIR, SOFT, BONE, FLUID, GREY, WHITE = range(6)
HOUNSFIELD = {AIR: -1000.0, SOFT: 45.0, BONE: 1100.0, FLUID: 8.0, GREY: 38.0, WHITE: 30.0}
"""Of each tissue, before noise; bone varies by ± 300 from head to head and within one."""
MAGNETIC = {AIR: 0.0, SOFT: 620.0, BONE: 60.0, FLUID: 180.0, GREY: 480.0, WHITE: 720.0}
"""Signal of each tissue, T1-like, in scanner units."""
_FIELD = 220.0  # millimetres along a side


@dataclasses.dataclass(frozen=True)
class HeadsOptions(Settings):
    """Options of `phantom:heads`."""

    size: int = setting(48, help="voxels along each side; the field of view is 220 mm", minimum=16, maximum=256)
    seed: int = setting(0, help="which series of heads", minimum=0)
    modality: Literal["mr", "ct"] = setting("mr", help="T1-like signal with coil shading, or Hounsfield units")


class HeadsPhantom:
    """One volume a patient: image [size, size, size, 1] (slice, row, column), MR uint16 or CT int16, with spacing.

    Label map: 0 air, also in the sinuses, 1 soft tissue, 2 bone, 3 fluid, 4 grey matter, 5 white matter.
    """

    options_class = HeadsOptions

    def __init__(self, options: HeadsOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One volume each."""
        return index

    def label(self, index: int) -> None:
        """Heads have no class."""

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"air": AIR, "soft tissue": SOFT, "bone": BONE, "fluid": FLUID, "grey matter": GREY, "white matter": WHITE}

    def draw(self, index: int) -> dict[str, Any]:
        """`image`, `mask` uint8 [size, size, size], `spacing` float32 [3], `modality`."""
        tissue = _anatomy(numpy_generator(self.options.seed, "heads", index), self.options.size)
        rng = numpy_generator(self.options.seed, f"heads {self.options.modality}", index)
        picture = _tomography if self.options.modality == "ct" else _resonance
        spacing = np.full(3, _FIELD / self.options.size, np.float32)
        record = {"mask": tissue, "spacing": spacing, "modality": self.options.modality.upper()}
        return {"image": picture(rng, tissue)[..., np.newaxis], **record}


def _anatomy(rng: np.random.Generator, size: int) -> np.ndarray:
    """Tissue codes uint8 [size]³. Lengths are in half sides; z points down, y backwards."""
    axis = np.linspace(-1, 1, size)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    shift, turn = rng.uniform(-0.04, 0.04, 3), rng.normal(0.0, 0.08)
    z, y, x = z - shift[0], y - shift[1], x - shift[2]
    y, x = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    half = np.array([0.78, 0.82, 0.64]) * rng.uniform(0.94, 1.06, 3)

    def shell(scale: float, lift: float = 0.0) -> np.ndarray:
        return np.sqrt(((z + lift) / half[0]) ** 2 + (y / half[1]) ** 2 + (x / half[2]) ** 2) / scale

    folds = ndimage.gaussian_filter(rng.normal(size=z.shape), size / 24)
    folds = 0.03 * folds / folds.std()
    skull = rng.uniform(0.88, 0.92)
    tissue = np.full(z.shape, AIR, np.uint8)
    tissue[(shell(1.0) < 1) | (np.hypot(y + 0.1, x) < 0.3) & (z > 0.4)] = SOFT  # head and neck
    tissue[(shell(skull, 0.06) < 1) & (z < 0.45)] = BONE
    tissue[np.hypot(y - 0.12, x) < 0.11] = np.where(z > 0.4, BONE, tissue)[np.hypot(y - 0.12, x) < 0.11]  # spine
    inner = shell(skull - rng.uniform(0.08, 0.12), 0.06) + folds / 3
    tissue[(inner < 1) & (z < 0.38)] = FLUID
    brain = inner + folds
    tissue[(brain < 0.95) & (z < 0.36)] = GREY
    tissue[(brain < 0.8) & (z < 0.3)] = WHITE
    for side in (-1, 1):
        ventricle = np.hypot((z + 0.12) / 0.16, (y - 0.02) / 0.3) ** 2 + ((x - side * 0.11) / rng.uniform(0.06, 0.1)) ** 2
        tissue[ventricle < 1] = FLUID
        sinus = ((z - 0.3) / 0.16) ** 2 + ((y + 0.6) / 0.12) ** 2 + ((x - side * 0.17) / 0.12) ** 2
        tissue[(sinus < 1.8) & (shell(1.0) < 0.97)] = BONE
        tissue[(sinus < 1) & (shell(1.0) < 0.97)] = AIR
    return tissue


def _tomography(rng: np.random.Generator, tissue: np.ndarray) -> np.ndarray:
    """Hounsfield units, int16."""
    table = np.array([HOUNSFIELD[code] for code in range(6)])
    table[BONE] += rng.uniform(-300, 300)
    texture = ndimage.gaussian_filter(rng.normal(size=tissue.shape), 1.5)
    image = table[tissue] + np.where(tissue == BONE, 300.0 * texture / texture.std() / 3, 0.0)
    image = ndimage.gaussian_filter(image, 0.5) + rng.normal(0.0, 12.0, tissue.shape)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _resonance(rng: np.random.Generator, tissue: np.ndarray) -> np.ndarray:
    """Signal with coil shading and Rician noise, uint16."""
    table = np.array([MAGNETIC[code] for code in range(6)]) * rng.uniform(0.95, 1.05, 6)
    shading = ndimage.zoom(rng.normal(0.0, 0.12, [3, 3, 3]), np.array(tissue.shape) / 3, order=3)
    image = ndimage.gaussian_filter(table[tissue], 0.5) * (1.0 + shading) * rng.uniform(0.8, 1.2)
    noisy = np.hypot(image + rng.normal(0.0, 15.0, image.shape), rng.normal(0.0, 15.0, image.shape))
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)
