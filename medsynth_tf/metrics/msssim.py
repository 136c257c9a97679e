"""Multi-scale structural similarity (MS-SSIM) of pairs, of all pairs of two sets, and as a measure of one set's diversity."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.metrics.arrays import as_unit_float, require_images

_POWER_FACTORS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003, finest scale first
_FILTER = 11
_PAIRS_AT_ONCE = 16
_SIGMA = 1.5  # of the Gaussian window
_K1, _K2 = 0.01, 0.03  # its constants keep quotients of flat regions finite
_PRODUCTS_AT_ONCE = 2**22  # pixels of products of pairs that are in memory together


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


def pairwise_ms_ssim(
    first: np.ndarray, second: np.ndarray, scales: int = 3, window: int = 11, symmetric: bool = False
) -> np.ndarray:
    """MS-SSIM of each image with each other one: what `tf.image.ssim_multiscale` gives pair by pair, filtering only products anew.

    Wang, Simoncelli, Bovik 2003: l_M^α Π_j c_j^β s_j^γ with the paper's factors of the first scales, rescaled to sum to one; the window
    is a Gaussian of deviation 1.5, the range of values is 1, negative terms count 0. Of colours the mean over channels counts.

    Args:
        first: uint8, or float in [0, 1], [N, H, W, 1 or 3].
        second: [M, H, W, 1 or 3] of the same size.
        scales: M, 1 to 5; each halves the images.
        window: side of the window in pixels.
        symmetric: `second` is `first`, so that half the pairs are enough.

    Returns:
        float32 [N, M] in [0, 1].

    Raises:
        DataError: no images, of different sizes, or smaller than `window` · 2^(scales − 1).
    """
    import tensorflow as tf

    first, second = require_images(first, "images for MS-SSIM"), require_images(second, "images for MS-SSIM")
    if first.shape[1:] != second.shape[1:]:
        raise DataError(f"images for MS-SSIM are {list(first.shape[1:])} and {list(second.shape[1:])}: sizes must be the same")
    if not 1 <= scales <= len(_POWER_FACTORS):
        raise DataError(f"MS-SSIM: scales = {scales}, must be 1 to {len(_POWER_FACTORS)}")
    side, least = min(first.shape[1:3]), window * 2 ** (scales - 1)
    if side < least:
        raise DataError(
            f"MS-SSIM of {scales} scales with a window of {window} needs images of {least} pixels, these have {side}"
        )
    factors = np.array(_POWER_FACTORS[:scales])
    pyramids = [_filtered_pyramid(as_unit_float(images), scales, window) for images in (first, second)]
    result = np.zeros([len(first), len(second)], np.float32)
    pixels = int(np.prod(first.shape[1:]))
    rows = max(1, _PRODUCTS_AT_ONCE // (pixels * min(len(second), 256)))
    for top in range(0, len(first), rows):
        for left in range(0, len(second), 256):
            if symmetric and left + 256 <= top:
                continue
            parts = [
                [tuple(part[start : start + length] for part in level) for level in pyramid]
                for pyramid, start, length in ((pyramids[0], top, rows), (pyramids[1], left, 256))
            ]
            values = tf.ones([], tf.float32)
            for level, factor in enumerate(factors / factors.sum()):
                values *= _similarity(*parts[0][level], *parts[1][level], window=window, last=level == scales - 1) ** factor
            result[top : top + rows, left : left + 256] = tf.reduce_mean(values, -1).numpy()
    if symmetric:
        upper = np.triu(result)
        result = upper + np.triu(result, 1).T
    return result


def max_ms_ssim(
    first: np.ndarray, second: np.ndarray, scales: int = 3, window: int = 11, own: np.ndarray | None = None
) -> np.ndarray:
    """Of each image its greatest MS-SSIM with the images of the second set, float32 [N].

    Args:
        first, second, scales, window: as for `pairwise_ms_ssim`.
        own: for each image of `first` which one of `second` it is itself, int [N], or None: that pair does not count.

    Raises:
        DataError: as `pairwise_ms_ssim`; or an image has no other to be compared with.
    """
    if own is not None and len(second) < 2:
        raise DataError("an image cannot be compared with others: there are none")
    symmetric = own is not None and len(first) == len(second) and np.array_equal(own, np.arange(len(first)))
    found = pairwise_ms_ssim(first, second, scales, window, symmetric)
    if own is not None:
        found[np.arange(len(first)), own] = -np.inf
    return found.max(1)


def _window_matrix(side: int, window: int):
    """What a row of pixels is multiplied with to be filtered, float32 [side − window + 1, side]."""
    offsets = np.arange(window) - (window - 1) / 2
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    matrix = np.zeros([side - window + 1, side])
    for row in range(len(matrix)):
        matrix[row, row : row + window] = weights / weights.sum()
    return matrix.astype(np.float32)


def _filter(planes, window: int):
    """Filters the last two axes of [..., H, W]."""
    import tensorflow as tf

    rows, columns = (_window_matrix(side, window) for side in planes.shape[-2:])
    along = tf.matmul(planes, columns, transpose_b=True)
    return tf.matmul(rows, along)


def _filtered_pyramid(images: np.ndarray, scales: int, window: int) -> list[tuple]:
    """Per scale: planes [N, C, H, W], their filtered values, their filtered squares."""
    import tensorflow as tf

    found = []
    for scale in range(scales):
        if scale:
            odd = [[0, 0], [0, images.shape[1] % 2], [0, images.shape[2] % 2], [0, 0]]
            images = tf.nn.avg_pool2d(tf.pad(images, odd, "SYMMETRIC"), 2, 2, "VALID")
        planes = tf.transpose(images, [0, 3, 1, 2])
        found.append((planes, _filter(planes, window), _filter(planes**2, window)))
    return found


def _similarity(x, mean_x, square_x, y, mean_y, square_y, *, window: int, last: bool):
    """Mean over pixels, [N, M, C], of contrast and structure, and in the last scale also of luminance; not below 0."""
    import tensorflow as tf

    product = _filter(x[:, tf.newaxis] * y[tf.newaxis], window)
    means = mean_x[:, tf.newaxis] * mean_y[tf.newaxis]
    squared = (mean_x**2)[:, tf.newaxis] + (mean_y**2)[tf.newaxis]
    moments = square_x[:, tf.newaxis] + square_y[tf.newaxis]
    found = (2.0 * (product - means) + _K2**2) / (moments - squared + _K2**2)
    if last:
        found *= (2.0 * means + _K1**2) / (squared + _K1**2)
    return tf.nn.relu(tf.reduce_mean(found, [-2, -1]))
