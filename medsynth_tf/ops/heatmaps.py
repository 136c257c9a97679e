"""Points to heatmaps: Gaussians at sub-pixel places, any number of them in one channel."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf


def gaussian_heatmaps(
    points: tf.Tensor, size: tuple[int, int], variance: float, compose: Literal["sum_minmax", "max"] = "sum_minmax"
) -> tf.Tensor:
    """One map per image with an isotropic Gaussian of covariance `variance`·I at each of its points.

    Args:
        points: float [B, P, 2], (row, column) in index coordinates, sub-pixel; rows that are not finite are no points.
        size: height and width of the maps.
        variance: in px²; a lone point's map is 0.5 at √(2 ln 2 · variance) from it.
        compose: 'sum_minmax' adds the Gaussians up and stretches each map to [0, 1], so that where points overlap the sum is 1 and
            lone points are below it; 'max' takes the largest Gaussian at each pixel, with peaks of 1.

    Returns:
        float32 [B, H, W] in [0, 1]; all zero for an image without points.
    """
    points = tf.cast(points, tf.float32)
    there = tf.reduce_all(tf.math.is_finite(points), -1)
    points = tf.where(there[..., tf.newaxis], points, 0.0)

    def profile(axis: int) -> tf.Tensor:
        offset = tf.range(size[axis], dtype=tf.float32) - points[..., axis, tf.newaxis]
        return tf.exp(-tf.square(offset) / (2.0 * variance))

    rows = profile(0) * tf.cast(there, tf.float32)[..., tf.newaxis]  # [B, P, H]
    columns = profile(1)  # [B, P, W]; a Gaussian is the product of its profiles
    if compose == "max":
        highest = tf.zeros([tf.shape(points)[0], *size])
        return tf.foldl(
            lambda found, pair: tf.maximum(found, pair[0][:, :, tf.newaxis] * pair[1][:, tf.newaxis]),
            (tf.transpose(rows, [1, 0, 2]), tf.transpose(columns, [1, 0, 2])),
            initializer=highest,
        )
    total = tf.einsum("bph,bpw->bhw", rows, columns)
    low = tf.reduce_min(total, [1, 2], keepdims=True)
    high = tf.reduce_max(total, [1, 2], keepdims=True)
    return tf.math.divide_no_nan(total - low, high - low)
