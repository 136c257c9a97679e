"""Vessel maps without learning, as a TensorFlow graph that can be served: CLAHE of the green channel, then Frangi's filter."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from medsynth_tf.ops.gaussian import gaussian_kernel, separable_filter

BINS = 256
TILES = 8
GREEN = 1


def equalise(grey: tf.Tensor, clip_limit: float = 0.01, tiles: int = TILES) -> tf.Tensor:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994).

    The image is cut into tiles, whose histograms are clipped, the excess being spread evenly; a pixel's value goes through the
    cumulative histograms of the four nearest tiles, blended linearly.

    Args:
        grey: float32 [B, H, W] in [0, 1].
        clip_limit: of a bin, as a share of a tile's pixels; 1 clips nothing.
        tiles: along each side; fewer for images whose tiles would have less than 4 pixels a side.

    Returns:
        float32 [B, H, W] in [0, 1].
    """
    height, width = grey.shape[1], grey.shape[2]
    tiles = max(1, min(tiles, height // 4, width // 4))
    rows, columns = -(-height // tiles), -(-width // tiles)
    padding = [[0, 0], [0, rows * tiles - height], [0, columns * tiles - width]]
    levels = tf.cast(tf.clip_by_value(tf.round(grey * (BINS - 1)), 0, BINS - 1), tf.int32)
    padded = tf.pad(levels, padding, "REFLECT")
    cut = tf.reshape(padded, [-1, tiles, rows, tiles, columns])
    cut = tf.reshape(tf.transpose(cut, [0, 1, 3, 2, 4]), [-1, rows * columns])  # [B·tiles², pixels]
    histogram = tf.math.bincount(cut, minlength=BINS, maxlength=BINS, axis=-1, dtype=tf.float32)
    pixels = float(rows * columns)
    limit = max(1.0, clip_limit * pixels)
    excess = tf.reduce_sum(tf.maximum(histogram - limit, 0.0), -1, keepdims=True)
    curve = tf.cumsum(tf.minimum(histogram, limit) + excess / BINS, -1) / pixels
    curve = tf.reshape(curve, [-1, tiles, tiles, BINS])

    def neighbours(length: int, side: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        place = (tf.range(length, dtype=tf.float32) + 0.5) / side - 0.5
        below = tf.floor(place)
        first, second = (tf.clip_by_value(tf.cast(value, tf.int32), 0, tiles - 1) for value in (below, below + 1.0))
        return first, second, place - below

    (top, bottom, down), (left, right, across) = neighbours(height, rows), neighbours(width, columns)

    def through(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(levels)
        row, column = (tf.broadcast_to(value, shape) for value in (row[tf.newaxis, :, tf.newaxis], column))
        return tf.gather_nd(curve, tf.stack([row, column, levels], -1), batch_dims=1)

    down = down[tf.newaxis, :, tf.newaxis]
    upper = (1 - across) * through(top, left) + across * through(top, right)
    lower = (1 - across) * through(bottom, left) + across * through(bottom, right)
    return (1 - down) * upper + down * lower


def frangi(grey: tf.Tensor, sigmas: Sequence[float], beta: float = 0.5) -> tf.Tensor:
    """How much each place looks like a dark line (Frangi et al., MICCAI 1998, eq. 15): the largest answer over the scales.

    With λ₁, λ₂ the Hessian's eigenvalues, |λ₁| ≤ |λ₂|: 0 where λ₂ ≤ 0, else exp(-(λ₁/λ₂)²/2β²)·(1 - exp(-(λ₁² + λ₂²)/2c²)), where c
    is half the largest √(λ₁² + λ₂²) of the image at that scale.

    Args:
        grey: float32 [B, H, W].
        sigmas: scales in pixels.
        beta: β.

    Returns:
        float32 [B, H, W] in [0, 1).
    """
    planes = tf.cast(grey, tf.float32)[..., tf.newaxis]
    best = tf.zeros_like(grey)
    for sigma in sigmas:
        smooth, slope, bend = (gaussian_kernel(sigma, order, min(grey.shape[1:])) for order in (0, 1, 2))
        scale = sigma**2  # derivatives at different scales are comparable
        hrr, hcc, hrc = (
            scale * separable_filter(planes, rows, columns)[..., 0]
            for rows, columns in ((bend, smooth), (smooth, bend), (slope, slope))
        )
        mean, spread = 0.5 * (hrr + hcc), tf.sqrt(0.25 * (hrr - hcc) ** 2 + hrc**2)
        high, low = mean + spread, mean - spread
        swap = tf.abs(high) < tf.abs(low)
        second, first = tf.where(swap, low, high), tf.where(swap, high, low)
        strength = first**2 + second**2
        largest = tf.reduce_max(strength, [1, 2], keepdims=True)
        line = tf.exp(-tf.math.divide_no_nan(first**2, second**2) / (2 * beta**2))
        answer = line * (1 - tf.exp(-tf.math.divide_no_nan(strength, 0.5 * largest)))  # 2c² = largest/2
        best = tf.maximum(best, tf.where(second > 0, answer, 0.0))
    return best


def stretch(values: tf.Tensor, percentiles: tuple[float, float]) -> tf.Tensor:
    """Each image's two percentiles to 0 and 1, clipped beyond; an image without contrast becomes 0. float32 [B, H, W]."""
    flat = tf.sort(tf.reshape(values, [tf.shape(values)[0], -1]), axis=-1)
    last = values.shape[1] * values.shape[2] - 1
    low, high = (flat[:, round(last * rank / 100)][:, tf.newaxis, tf.newaxis] for rank in percentiles)
    return tf.clip_by_value(tf.math.divide_no_nan(values - low, high - low), 0.0, 1.0)


def vesselness(
    images: tf.Tensor,
    sigmas: Sequence[float] = (1.0, 2.0, 3.0, 4.0),
    clip_limit: float = 0.01,
    percentiles: tuple[float, float] = (50.0, 99.0),
    dark: int = 10,
) -> tf.Tensor:
    """Vessel maps of fundus photographs.

    Args:
        images: uint8 [B, H, W, 3], RGB.
        sigmas: of Frangi's filter.
        clip_limit: of CLAHE.
        percentiles: of the answer within the field of view that become 0 and 1.
        dark: outside the field of view all channels are at most this; around its edge, as wide as the largest filter, the map
            is 0.

    Returns:
        float32 [B, H, W, 1] in [0, 1].
    """
    lit = tf.cast(tf.reduce_max(images, -1) > dark, tf.float32)[..., tf.newaxis]
    # outside, the mean of the field of view, so that its edge is a smaller step
    green = tf.cast(images[..., GREEN], tf.float32)[..., tf.newaxis] / 255.0
    level = tf.math.divide_no_nan(tf.reduce_sum(green * lit, [1, 2], keepdims=True), tf.reduce_sum(lit, [1, 2], keepdims=True))
    even = (green * lit + level * (1.0 - lit))[..., 0]
    answer = frangi(equalise(even, clip_limit), sigmas)
    reach = 2 * round(max(sigmas)) + 1
    inner = 1.0 - tf.nn.max_pool2d(1.0 - lit, reach, 1, "SAME")
    return stretch(answer * inner[..., 0], percentiles)[..., tf.newaxis]
