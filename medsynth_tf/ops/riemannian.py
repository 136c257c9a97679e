"""The Riemannian metric of a latent space that is learned from data: a few Gaussian bumps of matrices around centroids.

G⁻¹(z) = Σ_i ω_i(z) M_i + λ I with ω_i(z) = exp(-‖z - c_i‖² / T²). Source: Chadebec, Mantoux, Allassonnière, arXiv:2010.11518, and
Chadebec, Allassonnière (DALI 2021). All of it is batched over points and centroids; nothing of size [B, N, D, D] is made.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import tensorflow as tf

Gradient = Literal["exact", "reference"]
Sign = Literal["hamilton", "reference"]


class LatentMetric(NamedTuple):
    """What the metric is made of.

    Attributes:
        centroids: c, float32 [N, D].
        matrices: M, float32 [N, D, D], symmetric and positive semi-definite.
        weights: float32 [N], 1 for what counts, 0 for what does not (a slot that is not filled).
        temperature: T > 0, how far a centroid reaches.
        regularisation: λ > 0, what G⁻¹ is far from all centroids.
    """

    centroids: tf.Tensor
    matrices: tf.Tensor
    weights: tf.Tensor
    temperature: float
    regularisation: float

    def at(self, points: tf.Tensor) -> LocalMetric:
        """The metric at points float32 [B, D]."""
        return LocalMetric(self, points)


class LocalMetric:
    """A metric at points z. What is asked for is computed once.

    Args:
        metric: N centroids in D dimensions.
        points: z, float32 [B, D].
    """

    def __init__(self, metric: LatentMetric, points: tf.Tensor):
        self.metric, self.points = metric, points

    @functools.cached_property
    def influence(self) -> tf.Tensor:
        """ω [B, N]."""
        # dimensions first: broadcasting along the long last axis is several times faster
        points, centroids = tf.transpose(self.points), tf.transpose(self.metric.centroids)
        squared = tf.reduce_sum((points[:, :, tf.newaxis] - centroids[:, tf.newaxis]) ** 2, 0)
        return self.metric.weights * tf.exp(-squared / self.metric.temperature**2)

    @functools.cached_property
    def inverse(self) -> tf.Tensor:
        """G⁻¹(z) [B, D, D]."""
        size = self.metric.centroids.shape[-1]
        mixed = tf.matmul(self.influence, _flat(self.metric.matrices))
        return tf.reshape(mixed, [-1, size, size]) + self.metric.regularisation * tf.eye(size)

    @functools.cached_property
    def cholesky(self) -> tf.Tensor:
        """C, lower triangular with G⁻¹(z) = C Cᵀ, [B, D, D]."""
        return tf.linalg.cholesky(self.inverse)

    @functools.cached_property
    def tensor(self) -> tf.Tensor:
        """G(z) [B, D, D]."""
        size = self.metric.centroids.shape[-1]
        return tf.linalg.cholesky_solve(self.cholesky, tf.broadcast_to(tf.eye(size), tf.shape(self.cholesky)))

    @functools.cached_property
    def log_density(self) -> tf.Tensor:
        """ℓ(z) = ½ log det G⁻¹(z) [B], the logarithm of the volume element's inverse; log det G is -2 ℓ."""
        return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(self.cholesky)), -1)

    def log_density_gradient(self, variant: Gradient = "exact") -> tf.Tensor:
        """∇ℓ(z) = (1/T²) Σ_i ω_i tr(G M_i) (c_i - z) [B, D].

        Args:
            variant: 'reference' is what the authors' code computes instead, (1/T²) G Σ_i ω_i M_i (c_i - z), which is the
                gradient for D = 1 alone.
        """
        if variant == "exact":
            # tr(G M) = Σ_jk G_jk M_jk, since both are symmetric
            traces = tf.matmul(_flat(self.tensor), _flat(self.metric.matrices), transpose_b=True)
            return self._pull(traces)
        pushed = tf.einsum("nij,nj->ni", self.metric.matrices, self.metric.centroids)
        towards = tf.matmul(self.influence, pushed)
        mixed = self.inverse - self.metric.regularisation * tf.eye(self.metric.centroids.shape[-1])
        towards -= tf.linalg.matvec(mixed, self.points)
        return tf.linalg.matvec(self.tensor, towards) / self.metric.temperature**2

    def velocity(self, momentum: tf.Tensor) -> tf.Tensor:
        """G⁻¹(z) ρ [B, D] of a momentum ρ [B, D]."""
        return tf.linalg.matvec(self.inverse, momentum)

    def momentum(self, noise: tf.Tensor) -> tf.Tensor:
        """C⁻ᵀ γ [B, D]: N(0, G(z)) of standard normal γ [B, D]."""
        return tf.linalg.triangular_solve(self.cholesky, noise[..., tf.newaxis], lower=True, adjoint=True)[..., 0]

    def lowered(self, vector: tf.Tensor) -> tf.Tensor:
        """G(z) v [B, D] of a tangent vector v [B, D]."""
        return tf.linalg.cholesky_solve(self.cholesky, vector[..., tf.newaxis])[..., 0]

    def kinetic(self, momentum: tf.Tensor) -> tf.Tensor:
        """½ ρᵀ G⁻¹(z) ρ [B]."""
        return 0.5 * tf.reduce_sum(momentum * self.velocity(momentum), -1)

    def kinetic_gradient(self, momentum: tf.Tensor) -> tf.Tensor:
        """∇_z of `kinetic` at fixed ρ, (1/T²) Σ_i ω_i (ρᵀ M_i ρ) (c_i - z) [B, D]."""
        outer = momentum[:, :, tf.newaxis] * momentum[:, tf.newaxis]
        return self._pull(tf.matmul(_flat(outer), _flat(self.metric.matrices), transpose_b=True))

    def log_momentum_density(self, momentum: tf.Tensor) -> tf.Tensor:
        """log N(ρ; 0, G(z)) [B]."""
        size = momentum.shape[-1]
        return -self.kinetic(momentum) + self.log_density - 0.5 * size * math.log(2.0 * math.pi)

    def _pull(self, strengths: tf.Tensor) -> tf.Tensor:
        """(1/T²) Σ_i ω_i s_i (c_i - z) of s [B, N]."""
        pulls = self.influence * strengths
        towards = tf.matmul(pulls, self.metric.centroids) - tf.reduce_sum(pulls, -1, keepdims=True) * self.points
        return towards / self.metric.temperature**2


def exponential_map(
    metric: LatentMetric, start: tf.Tensor, velocity: tf.Tensor, steps: int = 10, sign: Sign = "hamilton"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the geodesic from p with velocity v is at time 1: Hamilton's equations by the explicit midpoint rule.

    ṗ = G⁻¹(p) q and q̇ = -∇_p ½ qᵀ G⁻¹(p) q, with q(0) = G(p) v.

    Args:
        start: p, float32 [B, D].
        velocity: v, float32 [B, D].
        steps: of the integration over [0, 1].
        sign: 'reference' turns q̇ round, as the authors' code does: energy is then not conserved, and paths bend towards centroids.

    Returns:
        Point and momentum, float32 [B, D] each.
    """
    turn = -1.0 if sign == "hamilton" else 1.0
    size = 1.0 / steps

    def slopes(p: tf.Tensor, q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        here = metric.at(p)
        return here.velocity(q), turn * here.kinetic_gradient(q)

    def advance(step: tf.Tensor, p: tf.Tensor, q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        to_p, to_q = slopes(p, q)
        to_p, to_q = slopes(p + 0.5 * size * to_p, q + 0.5 * size * to_q)
        return step + 1, p + size * to_p, q + size * to_q

    first = (tf.constant(0), start, metric.at(start).lowered(velocity))
    _, point, momentum = tf.while_loop(lambda step, *_: step < steps, advance, first)
    return point, momentum


def _flat(matrices: tf.Tensor) -> tf.Tensor:
    """[..., D, D] → [..., D²]."""
    size = matrices.shape[-1]
    return tf.reshape(matrices, [-1, size * size])
