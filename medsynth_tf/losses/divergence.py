"""Divergences between Gaussians and mixtures of them."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

_LEAST_DEVIATION = 1e-8


def gaussian_kl(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)), summed over the latent axis and averaged over the batch, float32 scalar.

    Source: Kingma and Welling, arXiv:1312.6114, appendix B.

    Args:
        mean, log_variance: [B, N].
    """
    mean, log_variance = tf.cast(mean, tf.float32), tf.cast(log_variance, tf.float32)
    return tf.reduce_mean(0.5 * tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1.0 - log_variance, axis=-1))


def map_kl(mean: tf.Tensor, deviation: tf.Tensor, form: Literal["exact", "paper"] = "exact") -> tf.Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) per element, averaged over all of a map, float32 scalar.

    'exact' is ½ (μ² + σ² - log σ² - 1). 'paper' is eq. 6 of Hung and Galeotti (DGM4MICCAI 2021), ½ (μ²/σ² + σ² - log σ² - 1), which is
    no divergence from N(0, 1), but is 0 at the same place, μ = 0 and σ = 1.

    Args:
        mean: μ, any shape.
        deviation: σ ≥ 0, the standard deviation, of the same shape.
        form: which.
    """
    mean, deviation = tf.cast(mean, tf.float32), tf.maximum(tf.cast(deviation, tf.float32), _LEAST_DEVIATION)
    squares = mean**2 if form == "exact" else (mean / deviation) ** 2
    return 0.5 * tf.reduce_mean(squares + deviation**2 - 2.0 * tf.math.log(deviation) - 1.0)


def mixture_kl(
    log_weights: tf.Tensor,
    mean: tf.Tensor,
    log_variance: tf.Tensor,
    prior: tuple[tf.Tensor, tf.Tensor, tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """KL(q(z, ω) ‖ p(z, ω)) of a component ω and a vector z = N(μ_ω, diag σ_ω²), in closed form.

    With p = N(0, I)·(1/K) it is Σ_k s_k [log s_k + log K + ½ Σ_i (μ_ki² + σ_ki² - 1 - log σ_ki²)], the TVPS supplement's E log q
    - E log p. (Its ELBO has "+ KL" in one line: a slip of the sign.)

    Args:
        log_weights: log s [B, K].
        mean: μ [B, K, D].
        log_variance: log σ² [B, K, D].
        prior: the same three of p, matched component by component; None: uniform, N(0, I).

    Returns:
        Two parts float32 [B] whose sum is the divergence, each ≥ 0: of the components Σ s (log s - log p), and of the Gaussians.
    """
    log_weights, mean, log_variance = (tf.cast(value, tf.float32) for value in (log_weights, mean, log_variance))
    weights = tf.exp(log_weights)
    if prior is None:
        log_ratio = log_weights + tf.math.log(tf.cast(log_weights.shape[-1], tf.float32))
        terms = mean**2 + tf.exp(log_variance) - 1.0 - log_variance
    else:
        prior_weights, prior_mean, prior_variance = (tf.cast(value, tf.float32) for value in prior)
        log_ratio = log_weights - prior_weights
        difference = log_variance - prior_variance
        terms = (mean - prior_mean) ** 2 * tf.exp(-prior_variance) + tf.exp(difference) - 1.0 - difference
    categorical = tf.reduce_sum(weights * log_ratio, -1)
    gaussian = tf.reduce_sum(weights * 0.5 * tf.reduce_sum(terms, -1), -1)
    return categorical, gaussian


def mixture_kl_reference(log_weights: tf.Tensor, mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """The batch's divergence as the TVPS authors' file adds it up: a sum over samples, but log K - D/2 once. float32 scalar.

    Right for one sample; else it differs from the sum of `mixture_kl` by -(B - 1)(log K - D/2). Args as there.
    """
    categorical, gaussian = mixture_kl(log_weights, mean, log_variance)
    constant = tf.math.log(float(log_weights.shape[-1])) - 0.5 * mean.shape[-1]
    extra = tf.cast(tf.shape(log_weights)[0] - 1, tf.float32) * constant
    return tf.reduce_sum(categorical + gaussian) - extra
