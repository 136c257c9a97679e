"""Hamiltonian dynamics: the tempered flow that an RHVAE is trained with, and Metropolis samplers whose chains run as one batch.

Samplers take all their random numbers as arguments, so that chain b depends on row b alone. Sources: Caterini, Doucet, Sejdinovic,
arXiv:1805.11328 (flow and tempering); Girolami, Calderhead, JRSS B 73 (2011) (generalised leapfrog); Neal, MCMC handbook, ch. 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from medsynth_tf.ops.riemannian import LatentMetric, LocalMetric


def tempering(steps: int, beta_zero_sqrt: float) -> np.ndarray:
    """√β_0 … √β_K, float64 [K + 1]: 1/√β_k = (1 - 1/√β_0)(k/K)² + 1/√β_0, so √β_K = 1."""
    share = np.arange(steps + 1) / max(steps, 1)
    return 1.0 / ((1.0 - 1.0 / beta_zero_sqrt) * share**2 + 1.0 / beta_zero_sqrt)


def riemannian_flow(
    metric: LatentMetric,
    potential_gradient: Callable[[LocalMetric], tf.Tensor],
    points: tf.Tensor,
    momentum: tf.Tensor,
    steps: int,
    step_size: float,
    iterations: int = 3,
    beta_zero_sqrt: float = 1.0,
    detach: bool = False,
) -> tuple[LocalMetric, tf.Tensor]:
    """K generalised leapfrog steps of H(z, ρ) = U(z) + ½ ρᵀ G⁻¹(z) ρ, after each of which momenta are tempered.

    One step, of which the first two equations are implicit:
    ρ½ = ρ - ε/2 ∂_z H(z, ρ½); z' = z + ε/2 [G⁻¹(z) + G⁻¹(z')] ρ½; ρ' = ρ½ - ε/2 ∂_z H(z', ρ½). Then ρ ← (√β_{k-1}/√β_k) ρ'.

    Args:
        metric: of the space.
        potential_gradient: the metric at z → ∇U(z) [B, D]; asked once for each point of the path.
        points: z_0, float32 [B, D].
        momentum: ρ_0, float32 [B, D].
        steps: K, 0 or more.
        step_size: ε.
        iterations: fixed-point iterations for each implicit equation.
        beta_zero_sqrt: √β_0 in (0, 1]; 1 leaves momenta as they are.
        detach: no gradient flows through ∂_z H in the first equation, as in the authors' code.

    Returns:
        The metric at z_K, which knows z_K, and ρ_K [B, D].
    """
    roots = tempering(steps, beta_zero_sqrt)
    here = metric.at(points)
    slope = potential_gradient(here) if steps else None
    for step in range(steps):
        half = momentum
        for _ in range(iterations):
            change = slope + here.kinetic_gradient(half)
            half = momentum - 0.5 * step_size * (tf.stop_gradient(change) if detach else change)
        there, old = here, here.velocity(half)
        for _ in range(iterations):
            there = metric.at(here.points + 0.5 * step_size * (old + there.velocity(half)))
        slope = potential_gradient(there)
        momentum = half - 0.5 * step_size * (slope + there.kinetic_gradient(half))
        momentum *= float(roots[step] / roots[step + 1])
        here = there
    return here, momentum


class Chains(NamedTuple):
    """What Metropolis sampling leaves.

    Attributes:
        states: the last state of each chain, float32 [B, D].
        acceptance: share of its proposals that each chain accepted, float32 [B].
        trace: all states, the first among them, [S + 1, B, D]; None unless asked for.
    """

    states: tf.Tensor
    acceptance: tf.Tensor
    trace: tf.Tensor | None


def metropolis(
    start: tf.Tensor,
    uniforms: tf.Tensor,
    propose: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    keep_trace: bool = False,
) -> Chains:
    """Chains that take a proposal with probability min(1, r) and stay otherwise; compared in logarithms, so that r may be any size.

    Args:
        start: float32 [B, D].
        uniforms: in [0, 1), float32 [B, S], one for each of the S steps.
        propose: (step int32, states [B, D]) → proposals [B, D] and log r [B]; NaN or -∞ refuses.
        keep_trace: return all states.
    """
    steps = uniforms.shape[1]
    trace = tf.TensorArray(tf.float32, size=steps + 1 if keep_trace else 0, element_shape=start.shape)
    if keep_trace:
        trace = trace.write(0, start)

    def advance(
        step: tf.Tensor, states: tf.Tensor, accepted: tf.Tensor, trace: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        proposals, log_ratio = propose(step, states)
        taken = tf.math.log(uniforms[:, step]) < log_ratio
        states = tf.where(taken[:, tf.newaxis], proposals, states)
        if keep_trace:
            trace = trace.write(step + 1, states)
        return step + 1, states, accepted + tf.cast(taken, tf.float32), trace

    none = tf.zeros_like(start[:, 0])
    _, states, accepted, trace = tf.while_loop(lambda step, *_: step < steps, advance, (tf.constant(0), start, none, trace))
    return Chains(states, accepted / max(steps, 1), trace.stack() if keep_trace else None)


def leapfrog(
    gradient: Callable[[tf.Tensor], tf.Tensor], points: tf.Tensor, momentum: tf.Tensor, steps: int, step_size: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Euclidean leapfrog steps of H = -ℓ(z) + ½ ‖ρ‖².

    Args:
        gradient: z [B, D] → ∇ℓ(z) [B, D].
        points, momentum: float32 [B, D].
        steps: at least 1.
        step_size: ε.
    """
    momentum += 0.5 * step_size * gradient(points)

    def advance(step: tf.Tensor, z: tf.Tensor, rho: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        z += step_size * rho
        return step + 1, z, rho + step_size * gradient(z)

    _, points, momentum = tf.while_loop(lambda step, *_: step < steps, advance, (tf.constant(0), points, momentum))
    return points, momentum - 0.5 * step_size * gradient(points)


def hamiltonian_monte_carlo(
    log_density: Callable[[tf.Tensor], tf.Tensor],
    gradient: Callable[[tf.Tensor], tf.Tensor],
    start: tf.Tensor,
    momenta: tf.Tensor,
    uniforms: tf.Tensor,
    leapfrog_steps: int,
    step_size: float,
    keep_trace: bool = False,
) -> Chains:
    """Samples of exp ℓ.

    Args:
        log_density: z [B, D] → ℓ(z) [B], up to a constant; -∞ where there must be no sample.
        gradient: z → ∇ℓ(z) [B, D]; a wrong one costs acceptance, not correctness.
        start: float32 [B, D].
        momenta: standard normal, float32 [B, S, D].
        uniforms: in [0, 1), float32 [B, S].
        leapfrog_steps, step_size: of each trajectory.
        keep_trace: return all states.
    """

    def propose(step: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        momentum = momenta[:, step]
        proposals, arrived = leapfrog(gradient, states, momentum, leapfrog_steps, step_size)
        before = log_density(states) - 0.5 * tf.reduce_sum(momentum**2, -1)
        after = log_density(proposals) - 0.5 * tf.reduce_sum(arrived**2, -1)
        return proposals, after - before

    return metropolis(start, uniforms, propose, keep_trace)
