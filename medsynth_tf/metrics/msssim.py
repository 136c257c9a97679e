"""Diversity as mean multi-scale structural similarity between images of one set: 1 means they are all the same."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.metrics.arrays import as_unit_float, require_images

_POWER_FACTORS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003, finest scale first
_FILTER = 11
_PAIRS_AT_ONCE = 16


def scales_for(height: int, width: int) -> tuple[tuple[float, ...], int]:
    """The power factors and the filter size with which MS-SSIM is defined for images of this size.

    Each scale halves the image, and the coarsest must still hold the 11-pixel filter: five scales from 176 pixels on. Smaller
    images have fewer, their factors rescaled to sum to one; images under 11 pixels one, with a filter of their size.
    """
    side = min(height, width)
    levels = 1
    while levels < len(_POWER_FACTORS) and side // 2**levels >= _FILTER:
        levels += 1
    factors = np.array(_POWER_FACTORS[:levels])
    return tuple((factors / factors.sum()).tolist()), min(_FILTER, side)


def ms_ssim_diversity(images: np.ndarray, pairs: int = 256, seed: int = 0) -> float:
    """Mean MS-SSIM over pairs of different images.

    Args:
        images: uint8, or float in [0, 1], [N, H, W, 1 or 3], N at least 2.
        pairs: at most this many, drawn without replacement from the N (N − 1) / 2.
        seed: of the draw.

    Raises:
        DataError: fewer than two images, or no images.
    """
    images = require_images(images, "images for MS-SSIM", least=2)
    import tensorflow as tf

    factors, filter_size = scales_for(*images.shape[1:3])
    total = len(images) * (len(images) - 1) // 2
    chosen = np.sort(numpy_generator(seed, "ms_ssim").choice(total, min(pairs, total), replace=False))
    first, second = _pair_of(chosen)
    values = []
    for start in range(0, len(chosen), _PAIRS_AT_ONCE):
        batch = slice(start, start + _PAIRS_AT_ONCE)
        one, other = (as_unit_float(images[index[batch]]) for index in (first, second))
        values.append(tf.image.ssim_multiscale(one, other, 1.0, factors, filter_size).numpy())
    return float(np.concatenate(values).astype(np.float64).mean())


def _pair_of(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pair i < j that has this number when pairs are counted (0,1), (0,2), (1,2), (0,3), …"""
    j = np.floor((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > number  # where the root was rounded up
    return number - j * (j - 1) // 2, j
