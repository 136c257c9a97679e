"""Losses on the features of a fixed network that say whether two images have the same texture (Gatys et al., arXiv:1508.06576)."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.ops.instance_statistics import channel_statistics


def gram_matrix(features: tf.Tensor) -> tf.Tensor:
    """G[u, v] = Σ_{h,w} ψ_u ψ_v / (C·H·W) of each sample, float32 [B, C, C].

    Args:
        features: ψ [B, H, W, C].
    """
    features = tf.cast(features, tf.float32)
    shape, channels = tf.shape(features), features.shape[-1]
    flat = tf.reshape(features, [shape[0], shape[1] * shape[2], channels])
    count = tf.cast(channels * shape[1] * shape[2], tf.float32)
    return tf.matmul(flat, flat, transpose_a=True) / count


def gram_distance(target: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """½ mean over u, v of (G(target) - G(features))², float32 [B].

    Args:
        target: [B, h, w, C]; no gradient goes into it.
        features: [B, H, W, C]; sizes may differ.
    """
    difference = gram_matrix(features) - tf.stop_gradient(gram_matrix(target))
    return 0.5 * tf.reduce_mean(difference**2, [1, 2])


def moment_distance(target: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of channel means plus that of channel deviations, float32 [B] (Huang and Belongie, arXiv:1703.06868,
    eq. 13, with mean squares for norms). Args as of `gram_distance`."""
    wanted = tf.stop_gradient(tf.concat(channel_statistics(target), 1))
    return 2.0 * tf.reduce_mean((tf.concat(channel_statistics(features), 1) - wanted) ** 2, [1, 2, 3])


def content_distance(target: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of two maps of one shape [B, H, W, C], float32 [B]; no gradient goes into the target."""
    difference = tf.cast(features, tf.float32) - tf.stop_gradient(tf.cast(target, tf.float32))
    return tf.reduce_mean(difference**2, [1, 2, 3])
