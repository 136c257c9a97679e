"""Sliced Wasserstein distance of local patches over a Laplacian pyramid (Karras et al., arXiv:1710.10196, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.metrics.arrays import as_unit_float, require_images

PATCH = 7  # side of a patch
_BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0], np.float32) / 16.0


def laplacian_pyramid(images: np.ndarray, smallest: int = 16) -> list[np.ndarray]:
    """Band-pass levels, finest first, and the low-pass rest as the last one; levels sum back to the images.

    Args:
        images: float32 [N, H, W, C].
        smallest: levels go on while the next one's shorter side is at least this.
    """
    levels = []
    rest = np.asarray(images, np.float32)
    while min(rest.shape[1:3]) // 2 >= smallest:
        coarser = _blurred(rest)[:, ::2, ::2]
        levels.append(rest - enlarged(coarser, rest.shape))
        rest = coarser
    return [*levels, rest]


def enlarged(images: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """[N, H/2, W/2, C] → `shape`, by zeros between pixels and the pyramid's filter."""
    spread = np.zeros(shape, np.float32)
    spread[:, ::2, ::2] = images
    return 4.0 * _blurred(spread)


def _blurred(images: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        images = ndimage.correlate1d(images, _BINOMIAL, axis=axis, mode="mirror")
    return images


def _patches(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Patches [N·P, PATCH, PATCH, C] whose upper left corners are `places` int [N, P, 2]."""
    offsets = np.arange(PATCH)
    rows = places[..., 0, None, None] + offsets[:, None]
    columns = places[..., 1, None, None] + offsets[None, :]
    image = np.arange(len(images))[:, None, None, None]
    return images[image, rows, columns].reshape(-1, PATCH, PATCH, images.shape[-1])


def wasserstein_of_projections(first: np.ndarray, second: np.ndarray, directions: np.ndarray) -> float:
    """Mean over directions of the 1-Wasserstein distance of the projected points.

    Args:
        first, second: [M, D], equally many points.
        directions: [D, R].
    """
    projected = (np.sort(points @ directions, axis=0) for points in (first, second))
    return float(np.abs(np.subtract(*projected)).mean())


def sliced_wasserstein(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    patches_per_image: int = 128,
    directions: int = 512,
    smallest: int = 16,
    seed: int = 0,
) -> dict[str, float]:
    """How different local patches are at each scale; multiply by 1000 for the figures that papers print.

    From each level of the Laplacian pyramid patches of 7×7 pixels are drawn at random, each channel is standardised within its set, and
    the distance is averaged over random directions.

    Args:
        real, synthetic: uint8 or unit float [N, H, W, C]; of the larger set, the first images as many as the smaller one has.
        patches_per_image, directions: numbers of random patches and directions.
        smallest: side at which the pyramid ends; at least 7.
        seed: of patches and directions.

    Returns:
        Distance by level, named by its side ('64', '32', …), and their mean as 'mean'.

    Raises:
        DataError: no images, other shapes, or images smaller than a patch.
    """
    real, synthetic = require_images(real, "real images"), require_images(synthetic, "synthetic images")
    if real.shape[1:] != synthetic.shape[1:]:
        raise DataError(f"images of {list(real.shape[1:])} and {list(synthetic.shape[1:])}: sizes must be the same")
    if min(real.shape[1:3]) < PATCH or smallest < PATCH:
        raise DataError(f"sliced Wasserstein distance needs images and levels of at least {PATCH} pixels")
    count = min(len(real), len(synthetic))
    pyramids = [laplacian_pyramid(as_unit_float(images[:count]), smallest) for images in (real, synthetic)]
    distances: dict[str, float] = {}
    for level, pair in enumerate(zip(*pyramids)):
        height, width, channels = pair[0].shape[1:]
        rng = numpy_generator(seed, "sliced_wasserstein", level)
        limits = (height - PATCH + 1, width - PATCH + 1)
        points = []
        for images in pair:
            places = np.stack([rng.integers(0, limit, [count, patches_per_image]) for limit in limits], -1)
            drawn = _patches(images, places).astype(np.float64)
            drawn -= drawn.mean((0, 1, 2))
            drawn /= np.maximum(drawn.std((0, 1, 2)), 1e-8)
            points.append(drawn.reshape(len(drawn), -1))
        axes = rng.standard_normal([PATCH * PATCH * channels, directions])
        axes /= np.linalg.norm(axes, axis=0)
        distances[str(min(height, width))] = wasserstein_of_projections(points[0], points[1], axes)
    return {**distances, "mean": float(np.mean(list(distances.values())))}
