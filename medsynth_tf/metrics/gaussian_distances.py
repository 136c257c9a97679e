"""Distances of a set of features from another one by means and covariances, in float64, and what they are by chance.

Source: Tronchin et al., "Evaluating GANs in Medical Imaging", table 1. What a score is worth is seen from its floor only: with as
many features as images even a perfect generator is far from 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.covariance import ledoit_wolf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.metrics.arrays import require_features

ESTIMATORS = ("auto", "plain", "shrinkage", "pinv")


def mahalanobis(synthetic: np.ndarray, real: np.ndarray, estimator: str = "auto") -> np.ndarray:
    """√((x − μ_Y)ᵀ Σ_Y⁻¹ (x − μ_Y)) of each synthetic feature vector x from the real ones Y, float64 [N].

    The root: magnitudes in the paper's table 4 are those of d, not of the d² in its table 1.

    Args:
        synthetic: [N, F].
        real: [M, F], M at least 2.
        estimator: of Σ_Y: 'plain', the sample covariance, which must be invertible; 'shrinkage', Ledoit and Wolf's; 'pinv', the
            sample covariance with its pseudo-inverse, so that directions in which real features do not vary do not count; 'auto',
            plain where it is invertible and M > F + 2, else shrinkage.

    Raises:
        DataError: other shapes, values that are not finite, or 'plain' with a singular covariance.
    """
    synthetic, real = _pair(synthetic, real, least=1)
    if estimator not in ESTIMATORS:
        raise DataError(f"covariance estimator '{estimator}': expected one of {', '.join(ESTIMATORS)}")
    centred = synthetic - real.mean(0)
    covariance = np.cov(real, rowvar=False).reshape(real.shape[1], real.shape[1])
    full = len(real) > real.shape[1] + 2 and np.linalg.matrix_rank(covariance, hermitian=True) == real.shape[1]
    if estimator == "plain" and not full:
        raise DataError(f"covariance of {len(real)} vectors of {real.shape[1]} features is singular: use shrinkage or pinv")
    if estimator == "shrinkage" or (estimator == "auto" and not full):
        covariance = ledoit_wolf(real)[0]
    if estimator == "pinv":
        inverse = np.linalg.pinv(covariance, rcond=1e-12, hermitian=True)
    elif np.any(covariance):
        inverse = np.linalg.inv(covariance)
    else:
        raise DataError("real features do not vary at all: there is no distance in units of their deviation")
    return np.sqrt(np.maximum(np.einsum("nf,fg,ng->n", centred, inverse, centred), 0.0))


def gaussian_frechet(first: np.ndarray, second: np.ndarray) -> float:
    """‖μ_X − μ_Y‖² + tr(Σ_X + Σ_Y − 2 (Σ_X Σ_Y)^½), symmetric, never negative, NaN or complex, whatever the covariances' rank.

    The trace of the root is the sum of the singular values of Σ_X^½ Σ_Y^½.

    Args:
        first, second: [N, F] and [M, F], at least 2 rows each.

    Raises:
        DataError: other shapes, or values that are not finite.
    """
    first, second = _pair(first, second, least=2)
    size = first.shape[1]
    covariances = [np.cov(features, rowvar=False).reshape(size, size) for features in (first, second)]
    roots = [_root(covariance) for covariance in covariances]
    trace = np.trace(covariances[0]) + np.trace(covariances[1])
    overlap = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    gap = first.mean(0) - second.mean(0)
    return float(gap @ gap + max(trace - 2.0 * overlap, 0.0))


def expected_mahalanobis(real: int, features: int) -> float | None:
    """√E[d²] of fresh samples of the very distribution that `real` plain samples gave mean and covariance of, if it is Gaussian:
    E[d²] = (1 + 1/n) (n − 1) D / (n − D − 2); None where n ≤ D + 2, and d² has no mean."""
    if real <= features + 2:
        return None
    return float(np.sqrt((1 + 1 / real) * (real - 1) * features / (real - features - 2)))


def floor(
    distance: Callable[[np.ndarray, np.ndarray], float], pool: np.ndarray, synthetic: int, real: int, draws: int, seed: int
) -> tuple[float, float]:
    """Mean and standard deviation of a distance between two disjoint random parts of one set: what the very best generator gets.

    Args:
        distance: of features [N, F] in the synthetic ones' place and [M, F] in the real ones'.
        pool: real features [P, F].
        synthetic, real: N and M; both are scaled down alike where N + M > P.
        draws: how many divisions.
        seed: of the divisions.

    Raises:
        DataError: the pool is too small for two parts of two vectors.
    """
    share = min(1.0, len(pool) / (synthetic + real))
    synthetic, real = int(synthetic * share), int(real * share)
    if min(synthetic, real) < 2:
        raise DataError(f"{len(pool)} real feature vectors are too few for two disjoint parts")
    rng = numpy_generator(seed, "floor")
    values = []
    for _ in range(draws):
        order = rng.permutation(len(pool))
        values.append(distance(pool[order[:synthetic]], pool[order[synthetic : synthetic + real]]))
    return float(np.mean(values)), float(np.std(values))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _pair(synthetic: np.ndarray, real: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    synthetic = require_features(synthetic, "synthetic images", least)
    real = require_features(real, "real images", 2)
    if synthetic.shape[1] != real.shape[1]:
        raise DataError(f"features of synthetic images have {synthetic.shape[1]} columns, of real ones {real.shape[1]}")
    return synthetic, real
