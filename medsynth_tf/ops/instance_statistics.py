"""Channel statistics of feature maps over space, and giving one map those of another."""

from __future__ import annotations

import tensorflow as tf

EPSILON = 1e-5


def channel_statistics(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation of each sample and channel over space, float32 [B, 1, 1, C].

    The deviation of a constant channel is 0 and has gradient 0.

    Args:
        x: [B, H, W, C].
    """
    x = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(x, [1, 2], keepdims=True)
    # not by tf.nn.moments: see layers.normalization.InstanceNormalization
    variance = tf.reduce_mean((x - mean) ** 2, [1, 2], keepdims=True)
    varies = variance > 0.0
    return mean, tf.where(varies, tf.sqrt(tf.where(varies, variance, 1.0)), 0.0)  # √ has no derivative at 0


def adaptive_instance_normalization(content: tf.Tensor, style: tf.Tensor, epsilon: float = EPSILON) -> tf.Tensor:
    """σ(s) (c - μ(c)) / σ(c) + μ(s) per sample and channel (Huang and Belongie, arXiv:1703.06868, eq. 8), in float32.

    Of the style nothing but its statistics counts, so its size may differ from the content's.

    Args:
        content: c [B, H, W, C].
        style: s [B, h, w, C].
        epsilon: added to both standard deviations.

    Returns:
        [B, H, W, C] in the content's dtype.
    """
    mean, deviation = channel_statistics(content)
    target_mean, target_deviation = channel_statistics(style)
    scaled = (tf.cast(content, tf.float32) - mean) * ((target_deviation + epsilon) / (deviation + epsilon))
    return tf.cast(scaled + target_mean, content.dtype)
