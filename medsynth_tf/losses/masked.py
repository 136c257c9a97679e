"""Losses that count annotated pixels alone."""

from __future__ import annotations

import tensorflow as tf


def masked_binary_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Σ m·[-y log p - (1 - y) log(1 - p)] and Σ m over everything, two float32 scalars; pixels with m = 0 have no gradient.

    Args:
        logits: of p, any shape.
        labels: y in [0, 1], that shape.
        weights: m in {0, 1}, that shape.
    """
    weights = tf.cast(weights, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(labels, tf.float32), logits=tf.cast(logits, tf.float32))
    return tf.reduce_sum(tf.where(weights > 0, weights * losses, 0.0)), tf.reduce_sum(weights)
