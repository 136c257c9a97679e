"""Losses of classifiers. All are means over what they are given; the train step divides by the number of replicas."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-E[log p_y], float32 scalar.

    Args:
        logits: [..., K].
        labels: integers in 0 … K-1, [...].
    """
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int32), logits=tf.cast(logits, tf.float32))
    )


def focal_loss(logits: tf.Tensor, labels: tf.Tensor, gamma: float = 2.0) -> tf.Tensor:
    """-E[(1 - p_y)^γ log p_y] (Lin et al., arXiv:1708.02002, eq. 4), float32 scalar; γ = 0 is cross-entropy.

    Args:
        logits: [..., K].
        labels: integers in 0 … K-1, [...].
        gamma: ≥ 0; how much less well-classified examples count.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int32), logits=tf.cast(logits, tf.float32)
    )
    missing = tf.maximum(-tf.math.expm1(-losses), tf.keras.backend.epsilon())  # 1 - p_y; x^γ has no gradient at 0 for γ < 1
    return tf.reduce_mean(missing**gamma * losses if gamma else losses)
