"""The training objectives: evidence lower bounds of the plain VAE, of the VAE with a VampPrior, and of the RHVAE with its flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from medsynth_tf.methods.generation.rhvae.config import FlowConfig
from medsynth_tf.ops.hamiltonian import riemannian_flow
from medsynth_tf.ops.riemannian import LatentMetric, LocalMetric

LOG_2_PI = math.log(2.0 * math.pi)
Decoder = Callable[[tf.Tensor], tf.Tensor]


class Flow(NamedTuple):
    """A posterior sample before and after the flow.

    Attributes:
        start: the metric at z_0, which knows z_0. end: at z_K.
        momentum_start: ρ_0 [B, D]. momentum: ρ_K.
        log_momentum_posterior: log N(ρ_0 √β_0; 0, its covariance) [B].
    """

    start: LocalMetric
    end: LocalMetric
    momentum_start: tf.Tensor
    momentum: tf.Tensor
    log_momentum_posterior: tf.Tensor


def log_bernoulli(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """log p(x|z) [B] of images [B, H, W, C] in [0, 1], which need not be 0 or 1, and logits of the same shape."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
    return -tf.reduce_sum(losses, [1, 2, 3])


def log_normal(x: tf.Tensor, mean: tf.Tensor | float = 0.0, log_variance: tf.Tensor | float = 0.0) -> tf.Tensor:
    """log N(x; μ, diag σ²) [...] of x [..., D]."""
    log_variance = tf.convert_to_tensor(log_variance, tf.float32)
    return -0.5 * tf.reduce_sum((x - mean) ** 2 * tf.exp(-log_variance) + log_variance + LOG_2_PI, -1)


def posterior_sample(mean: tf.Tensor, log_variance: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """z_0 = μ + σ ε [B, D]."""
    return mean + tf.exp(0.5 * log_variance) * noise


def vae_terms(images: tf.Tensor, logits: tf.Tensor, mean: tf.Tensor, log_variance: tf.Tensor) -> dict[str, tf.Tensor]:
    """The plain VAE's loss of each image (Kingma and Welling, arXiv:1312.6114, eq. 10), the divergence in closed form.

    Returns:
        {"loss", "reconstruction" (-log p(x|z)), "kl"}, float32 [B] each.
    """
    reconstruction = -log_bernoulli(images, logits)
    kl = 0.5 * tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1.0 - log_variance, -1)
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def vamp_terms(
    images: tf.Tensor,
    logits: tf.Tensor,
    latent: tf.Tensor,
    posterior: tuple[tf.Tensor, tf.Tensor],
    components: tuple[tf.Tensor, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """The loss with a VampPrior p(z) = 1/K Σ_k q(z|u_k) (Tomczak and Welling, arXiv:1705.07120, eq. 9), of one sample.

    Args:
        latent: z [B, D], of the posterior.
        posterior: its means and log-variances [B, D].
        components: those of the pseudo-inputs [K, D].

    Returns:
        {"loss", "reconstruction", "prior" (-log p(z)), "posterior" (log q(z|x))}, float32 [B] each.
    """
    reconstruction = -log_bernoulli(images, logits)
    means, log_variances = components
    of_components = log_normal(latent[:, tf.newaxis], means, log_variances)
    prior = math.log(means.shape[0]) - tf.reduce_logsumexp(of_components, -1)
    log_q = log_normal(latent, *posterior)
    return {
        "loss": reconstruction + prior + log_q,
        "reconstruction": reconstruction,
        "prior": prior,
        "posterior": log_q,
    }


def flow(
    settings: FlowConfig,
    metric: LatentMetric,
    images: tf.Tensor,
    decoder: Decoder,
    latent: tf.Tensor,
    noise: tf.Tensor,
    own_factors: tf.Tensor,
) -> Flow:
    """z_0 and a momentum go through the tempered Riemannian flow of H(z, ρ) = -log p(x, z) + ½ log det G(z) + ½ ρᵀ G⁻¹(z) ρ.

    Args:
        settings: of the flow.
        metric: of the space.
        images: x [B, H, W, C].
        decoder: z → logits.
        latent: z_0 [B, D].
        noise: γ, standard normal [B, D].
        own_factors: L of each image [B, D, D], for `momentum_init` 'reference'.
    """
    start = metric.at(latent)
    if settings.momentum_init == "cholesky_G":
        momentum, log_factor = start.momentum(noise), -start.log_density
    else:
        momentum = tf.linalg.matvec(own_factors, noise)
        log_factor = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(own_factors)), -1)
    log_posterior = log_normal(noise) - log_factor
    # without a step nothing tempers the momentum, so it starts as cold as it should end
    root = settings.beta_zero_sqrt if settings.steps else 1.0
    momentum /= root

    def potential_gradient(here: LocalMetric) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(here.points)
            logits = decoder(here.points)
        # the derivative of log p(x|z) by the logits in closed form makes the second differentiation cheaper
        pull = tape.gradient(logits, here.points, output_gradients=images - tf.sigmoid(logits))
        return here.points - pull - here.log_density_gradient()

    end, moved = riemannian_flow(
        metric,
        potential_gradient,
        latent,
        momentum,
        settings.steps,
        settings.step_size,
        settings.fixed_point_iterations,
        root,
        settings.gradient == "detached",
    )
    return Flow(start, end, momentum, moved, log_posterior)


def rhvae_terms(
    settings: FlowConfig, images: tf.Tensor, logits: tf.Tensor, moved: Flow, log_posterior: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The RHVAE's loss of each image, -[log p(x|z_K) + log N(z_K; 0, I) + log N(ρ_K; 0, G(z_K)) - log q(z_0|x)].

    With `elbo` 'exact' -log q(ρ_0|z_0) is added to the bracket: the factors √β_0 of ρ_0 and of the flow's Jacobian cancel.

    Args:
        settings: of the flow.
        images, logits: x, and those of z_K.
        moved: by `flow`.
        log_posterior: log q(z_0|x) [B].

    Returns:
        {"loss", "reconstruction", "prior", "momentum" (negative logarithms), "posterior" (log q), with 'exact' also
        "momentum_posterior", "largest_momentum" (of |ρ_K|)}, float32 [B] each.
    """
    terms = {
        "reconstruction": -log_bernoulli(images, logits),
        "prior": -log_normal(moved.end.points),
        "momentum": -moved.end.log_momentum_density(moved.momentum),
        "posterior": log_posterior,
    }
    if settings.elbo == "exact":
        terms["momentum_posterior"] = moved.log_momentum_posterior
    loss = tf.add_n(list(terms.values()))
    return {"loss": loss, **terms, "largest_momentum": tf.reduce_max(tf.abs(moved.momentum), -1)}
