"""Divergences between Gaussians."""

from __future__ import annotations

import tensorflow as tf


def gaussian_kl(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)), summed over the latent axis and averaged over the batch, float32 scalar.

    Source: Kingma and Welling, arXiv:1312.6114, appendix B.

    Args:
        mean, log_variance: [B, N].
    """
    mean, log_variance = tf.cast(mean, tf.float32), tf.cast(log_variance, tf.float32)
    return tf.reduce_mean(0.5 * tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1.0 - log_variance, axis=-1))
