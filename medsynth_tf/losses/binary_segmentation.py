"""Losses of a segmentation of one class against the rest."""

from __future__ import annotations

import tensorflow as tf


def pixel_cross_entropy(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy, mean over all pixels, float32 scalar.

    Args:
        logits: float [B, …].
        mask: of the same shape, 0 or 1.
    """
    loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(mask, tf.float32), tf.cast(logits, tf.float32))
    return tf.reduce_mean(loss)


def soft_dice_loss(logits: tf.Tensor, mask: tf.Tensor, smoothing: float = 1.0) -> tf.Tensor:
    """1 - (2·Σ p·y + s)/(Σ p + Σ y + s) over the whole batch, float32 scalar; as Milletari et al., arXiv:1606.04797, without squares.

    Args:
        logits: float [B, …]; p is their sigmoid.
        mask: y, of the same shape, 0 or 1.
        smoothing: s; a batch without lesion in which none is found has the loss 0.
    """
    probability, truth = tf.sigmoid(tf.cast(logits, tf.float32)), tf.cast(mask, tf.float32)
    overlap = 2.0 * tf.reduce_sum(probability * truth) + smoothing
    return 1.0 - overlap / (tf.reduce_sum(probability) + tf.reduce_sum(truth) + smoothing)
