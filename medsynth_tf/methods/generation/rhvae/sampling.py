"""Latent vectors of a trained model by its learned geometry or by the baselines. Needs centroids, matrices, mixtures; no images."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from medsynth_tf.methods.generation.rhvae.config import SamplingConfig
from medsynth_tf.ops import random
from medsynth_tf.ops.hamiltonian import Chains, hamiltonian_monte_carlo, metropolis
from medsynth_tf.ops.riemannian import LatentMetric, exponential_map


class Mixture(NamedTuple):
    """Gaussians: weights [K], means [K, D] and lower triangular factors of covariances [K, D, D]."""

    weights: tf.Tensor
    means: tf.Tensor
    factors: tf.Tensor


def geometric(settings: SamplingConfig, metric: LatentMetric, seeds: tf.Tensor, keep_trace: bool = False) -> Chains:
    """Chains of samplers that go by the metric, one for each seed; all start from centroids drawn uniformly.

    Args:
        settings: sampler 'metric_hmc', 'random_walk' or 'wrapped_normal' (one step of which everything is accepted).
        metric: of one class.
        seeds: int64 [B].
        keep_trace: return all states.
    """
    start = start_points(metric, seeds)
    size = metric.centroids.shape[-1]

    def shoot(points: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        velocity = settings.proposal_deviation * noise
        return exponential_map(metric, points, velocity, settings.geodesic_steps, settings.geodesic_sign)[0]

    if settings.sampler == "wrapped_normal":
        states = shoot(start, random.normal(seeds, (size,), "velocity"))
        trace = tf.stack([start, states]) if keep_trace else None
        return Chains(states, tf.ones_like(states[:, 0]), trace)

    def log_density(points: tf.Tensor) -> tf.Tensor:
        return tf.where(inside(settings, metric, points), metric.at(points).log_density, -float("inf"))

    noise = random.normal(seeds, (settings.steps, size), "momenta")
    uniforms = random.uniform(seeds, (settings.steps,), "acceptance")
    if settings.sampler == "random_walk":

        def propose(step: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            proposals = shoot(states, noise[:, step])
            return proposals, log_density(proposals) - log_density(states)

        return metropolis(start, uniforms, propose, keep_trace)

    def gradient(points: tf.Tensor) -> tf.Tensor:
        return metric.at(points).log_density_gradient(settings.hmc_gradient)

    return hamiltonian_monte_carlo(
        log_density, gradient, start, noise, uniforms, settings.leapfrog_steps, settings.step_size, keep_trace
    )


def start_points(metric: LatentMetric, seeds: tf.Tensor) -> tf.Tensor:
    """A centroid for each seed, float32 [B, D], uniformly of those that count."""
    order = tf.cumsum(metric.weights)
    chosen = tf.floor(random.uniform(seeds, (), "centroid") * order[-1]) + 1.0
    index = tf.searchsorted(order, tf.minimum(chosen, order[-1]))
    return tf.gather(metric.centroids, index)


def inside(settings: SamplingConfig, metric: LatentMetric, points: tf.Tensor) -> tf.Tensor:
    """Whether points [B, D] are in the compact set S, bool [B]; it holds all centroids, `bounds_margin` times T inside."""
    if settings.bounds == "none":
        return tf.ones_like(points[:, 0], tf.bool)
    margin = settings.bounds_margin * metric.temperature
    counts = metric.weights[:, tf.newaxis] > 0
    if settings.bounds == "box":
        low = tf.reduce_min(tf.where(counts, metric.centroids, float("inf")), 0) - margin
        high = tf.reduce_max(tf.where(counts, metric.centroids, -float("inf")), 0) + margin
        return tf.reduce_all((points >= low) & (points <= high), -1)
    centre = tf.math.divide_no_nan(
        tf.reduce_sum(metric.weights[:, tf.newaxis] * metric.centroids, 0), tf.reduce_sum(metric.weights)
    )
    radius = tf.reduce_max(metric.weights * tf.norm(metric.centroids - centre, axis=-1)) + margin
    return tf.norm(points - centre, axis=-1) <= radius


def of_mixture(mixture: Mixture, seeds: tf.Tensor) -> tf.Tensor:
    """Draws of a mixture of Gaussians, float32 [B, D]."""
    order = tf.cumsum(mixture.weights)
    component = tf.searchsorted(order, random.uniform(seeds, (), "component") * order[-1], side="right")
    component = tf.minimum(component, mixture.weights.shape[0] - 1)
    noise = random.normal(seeds, (mixture.means.shape[-1],), "latent")
    return tf.gather(mixture.means, component) + tf.linalg.matvec(tf.gather(mixture.factors, component), noise)
