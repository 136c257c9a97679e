"""Intensities of a volume on a common scale, the same when training and when serving."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

MOST_VALUES = 2**20
"""Quantiles of larger volumes are taken from evenly spaced voxels, about this many."""


def robust_scale(volume: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(median, scale, background), float32 scalars, of a volume float32 of any shape.

    The scale is the inter-quartile range; where that is 0, as in volumes that are mostly background, the standard deviation;
    where that is 0 too, 1. The background is the first percentile on this scale, which is what images show outside the
    volume.
    """
    flat = tf.reshape(volume, [-1])
    step = tf.maximum(tf.size(flat) // MOST_VALUES, 1)
    ordered = tf.sort(tf.gather(flat, tf.range(0, tf.size(flat), step)))
    last = tf.cast(tf.size(ordered) - 1, tf.float32)

    def quantile(share: float) -> tf.Tensor:
        position = last * share
        below = tf.cast(tf.floor(position), tf.int32)
        part = position - tf.floor(position)
        above = tf.minimum(below + 1, tf.size(ordered) - 1)
        return (1.0 - part) * ordered[below] + part * ordered[above]

    median, spread = quantile(0.5), quantile(0.75) - quantile(0.25)
    deviation = tf.math.reduce_std(ordered)
    scale = tf.where(spread > 0.0, spread, tf.where(deviation > 0.0, deviation, 1.0))
    return median, scale, (quantile(0.01) - median) / scale


def normalised(volume: np.ndarray) -> tuple[np.ndarray, float]:
    """(volume - median) / scale, float32, and the background on that scale."""
    values = volume.astype(np.float32)
    median, scale, background = robust_scale(tf.constant(values))
    return (values - float(median)) / float(scale), float(background)
