"""Bright soft-edged shapes on black: each class has three unlike sub-types, with nothing between them.

For generators of few images: whoever fills the space between sub-types makes images that no set of real ones holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

VALUE = 0.9
_REFERENCE = 32.0  # lengths below are in pixels of an image of this side
_SHIFT = 1.5
NAMES = (("disc", "ring", "bar"), ("frame", "cross", "pair"))


@dataclasses.dataclass(frozen=True)
class ShapesOptions(Settings):
    """Options of `phantom:shapes`."""

    size: int = setting(32, help="side of the images in pixels", minimum=16, maximum=1024)
    seed: int = setting(0, help="which series of images", minimum=0)
    classes: int = setting(1, help="1: discs, rings and bars; 2: also frames, crosses and pairs of discs", minimum=1, maximum=2)


class ShapesPhantom:
    """One image a patient; classes take turns, and within a class its three sub-types do.

    Image uint8 [size, size, 1]. Label map: 0 outside a shape, 1 + sub-type inside.
    """

    options_class = ShapesOptions

    def __init__(self, options: ShapesOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One image each."""
        return index

    def label(self, index: int) -> int:
        """The classes in turn."""
        return index % self.options.classes

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"background": 0, "first sub-type": 1, "second sub-type": 2, "third sub-type": 3}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 1], `mask` uint8 [size, size]."""
        rng = numpy_generator(self.options.seed, "shapes", index)
        size, kind = self.options.size, index // self.options.classes % 3
        scale = size / _REFERENCE
        axis = (np.arange(size) - (size - 1) / 2) / scale
        centre = rng.uniform(-_SHIFT, _SHIFT, 2)
        y, x = np.meshgrid(axis - centre[0], axis - centre[1], indexing="ij")
        distance = _DISTANCES[NAMES[self.label(index)][kind]](rng, x, y)
        image = VALUE / (1.0 + np.exp(np.clip(2.0 * distance, -60, 60)))
        mask = np.where(distance <= 0, np.uint8(1 + kind), np.uint8(0))
        return {"image": np.rint(255 * image).astype(np.uint8)[..., np.newaxis], "mask": mask}


def _disc(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - rng.uniform(4, 11)


def _ring(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius, half_width = rng.uniform(7, 12), rng.uniform(1, 2.5)
    return np.abs(np.hypot(x, y) - radius) - half_width


def _bar(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along, across = _turned(rng.uniform(0, np.pi), x, y)
    return _box(along, across, 11.0, 2.5)


def _frame(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    side, half_width = rng.uniform(5, 8), rng.uniform(1, 2)  # its corners stay in the image however it is turned
    along, across = _turned(rng.uniform(0, np.pi / 2), x, y)
    return np.abs(np.maximum(np.abs(along), np.abs(across)) - side) - half_width


def _cross(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along, across = _turned(rng.uniform(0, np.pi / 2), x, y)
    return np.minimum(_box(along, across, 11.0, 2.0), _box(across, along, 11.0, 2.0))


def _pair(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius = rng.uniform(2.5, 5)
    along, across = _turned(rng.uniform(0, np.pi), x, y)
    return np.hypot(np.abs(along) - 7.5, across) - radius


_DISTANCES = {"disc": _disc, "ring": _ring, "bar": _bar, "frame": _frame, "cross": _cross, "pair": _pair}


def _turned(angle: float, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _box(along: np.ndarray, across: np.ndarray, half_length: float, half_width: float) -> np.ndarray:
    """Signed distance to a rectangle, below 0 inside."""
    over = np.abs(along) - half_length, np.abs(across) - half_width
    outside = np.hypot(np.maximum(over[0], 0), np.maximum(over[1], 0))
    return outside + np.minimum(np.maximum(*over), 0)
