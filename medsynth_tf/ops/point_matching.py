"""Greedy matching of points as a graph; `metrics.points.match_points` is the same for one image in NumPy, and says which."""

from __future__ import annotations

import tensorflow as tf


def count_matches(predicted: tf.Tensor, found: tf.Tensor, truth: tf.Tensor, there: tf.Tensor, radius: float) -> tf.Tensor:
    """How many pairs of a found and a true point at most `radius` apart there are, the nearest first, each point in one at most.

    Args:
        predicted: float32 [B, P, D].
        found: bool [B, P], which rows of them are points.
        truth: float32 [B, Q, D].
        there: bool [B, Q].
        radius: largest distance of a pair, itself allowed.

    Returns:
        int32 [B].
    """
    usable = found[:, :, tf.newaxis] & there[:, tf.newaxis]
    offset = tf.where(usable[..., tf.newaxis], predicted[:, :, tf.newaxis] - truth[:, tf.newaxis], 0.0)
    squared = tf.where(usable, tf.reduce_sum(tf.square(offset), -1), float("inf"))
    rows, columns = tf.shape(squared)[1], tf.shape(squared)[2]

    def step(squared: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        flat = tf.reshape(squared, [-1, rows * columns])
        nearest = tf.argmin(flat, 1, tf.int32)
        fits = tf.gather(flat, nearest, batch_dims=1) <= radius**2
        row = tf.one_hot(nearest // columns, rows, True, False)
        column = tf.one_hot(nearest % columns, columns, True, False)
        taken = (row[:, :, tf.newaxis] | column[:, tf.newaxis]) & fits[:, tf.newaxis, tf.newaxis]
        return tf.where(taken, float("inf"), squared), count + tf.cast(fits, tf.int32)

    def more(squared: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(squared <= radius**2)

    _, count = tf.while_loop(more, step, (squared, tf.zeros([tf.shape(squared)[0]], tf.int32)))
    return count
