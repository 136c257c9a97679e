"""Capsules among spheres in a cube of 48 mm: a structure of all directions, and another that sections of it can be taken for.

Nine capsules with a dark rim are the target; nine spheres of similar brightness, without one, are not. For methods that segment volumes
from slices.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

BACKGROUND, CAPSULE = 0, 1
SIDE = 48.0  # millimetres
_COUNT = 9
_RADIUS, _HALF_LENGTH, _SPHERE = (3.5, 5.0), (6.0, 12.0), (4.0, 6.0)
_RIM, _RIM_DEPTH = 1.2, 0.35  # millimetres, and how much darker than the background
_BRIGHT = (0.45, 0.6)
_TEXTURE, _TEXTURE_SCALE = 0.15, 3.0
_NOISE = 0.14
_TRIES = 200


@dataclasses.dataclass(frozen=True)
class CapsulesOptions(Settings):
    """Options of `phantom:capsules`."""

    size: int = setting(48, help="rows and columns", minimum=8, maximum=512)
    slices: int | None = setting(None, help="slices over the same 48 mm; default: as many as rows", minimum=4, maximum=512)
    seed: int = setting(0, help="which series of volumes", minimum=0)


class CapsulesPhantom:
    """Draws `phantom:capsules`: labels 0 background (spheres among it), 1 capsule."""

    options_class = CapsulesOptions

    def __init__(self, options: CapsulesOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """Each volume is another patient's."""
        return index

    def label(self, index: int) -> None:
        """Volumes have no class."""

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"background": BACKGROUND, "capsule": CAPSULE}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` float32 [D, S, S, 1] of mean 0 and deviation 1, `mask` uint8 [D, S, S], `spacing`."""
        rng = numpy_generator(self.options.seed, "capsules", index)
        size, slices = self.options.size, self.options.slices or self.options.size
        shape = (slices, size, size)
        spacing = SIDE / np.asarray(shape, np.float64)
        points = np.stack(np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing)), indexing="ij"), -1)
        texture = ndimage.gaussian_filter(rng.normal(size=shape), _TEXTURE_SCALE / spacing)
        image = _TEXTURE * texture / texture.std()
        mask = np.zeros(shape, np.uint8)
        placed: list[tuple[np.ndarray, np.ndarray, float]] = []
        for number in range(2 * _COUNT):
            capsule = number < _COUNT
            segment = _place(rng, placed, capsule)
            distance = _distance(points, segment[0], segment[1]) - segment[2]
            edge = np.clip(0.5 - distance, 0.0, 1.0)  # over one millimetre
            if capsule:
                rim = np.clip(1.0 - np.abs(distance - _RIM / 2) / _RIM, 0.0, 1.0)
                image -= _RIM_DEPTH * rim
                mask[distance <= 0] = CAPSULE
            image += rng.uniform(*_BRIGHT) * edge
        image += rng.normal(0.0, _NOISE, shape)
        image = (image - image.mean()) / image.std()
        return {"image": image.astype(np.float32)[..., None], "mask": mask, "spacing": spacing.astype(np.float32)}


def _place(
    rng: np.random.Generator, placed: list[tuple[np.ndarray, np.ndarray, float]], capsule: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Ends of the axis and radius of a body that touches none before it, if a place for one is found; it is added to `placed`."""
    for _ in range(_TRIES):
        radius = rng.uniform(*(_RADIUS if capsule else _SPHERE))
        half = rng.uniform(*_HALF_LENGTH) if capsule else 0.0
        direction = rng.normal(size=3)
        direction *= half / np.linalg.norm(direction)
        middle = rng.uniform(radius, SIDE - radius, 3)
        body = (middle - direction, middle + direction, radius)
        steps = np.linspace(body[0], body[1], 13)
        free = all((_distance(steps, a, b) > radius + r + _RIM).all() for a, b, r in placed)
        if free:
            break
    placed.append(body)
    return body


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Of points [..., 3] from a stretch of line."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0.0, 1.0) if length else np.zeros(points.shape[:-1])
    return np.linalg.norm(points - start - share[..., None] * along, axis=-1)
