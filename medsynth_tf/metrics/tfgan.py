"""Fréchet and kernel distances between feature sets: the one module that touches tensorflow-gan, now unmaintained."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.metrics.arrays import require_features

_BLOCK = 1000  # rows of a block of the kernel estimator


def frechet_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of the features' means and covariances: FID, if they are Inception's.

    It is biased upwards for few images, and more so the more features there are: compare only values of equal N and F.

    Args:
        real: [N, F], N at least 2.
        synthetic: [M, F], M at least 2.

    Raises:
        DataError: other shapes, too few rows, values that are not finite.
    """
    real, synthetic = _pair(real, synthetic)
    import tensorflow as tf
    import tensorflow_gan as tfgan

    return float(tfgan.eval.frechet_classifier_distance_from_activations(tf.constant(real), tf.constant(synthetic)))


def kernel_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Unbiased MMD² of the features with the kernel (xᵀy / F + 1)³: KID, if they are Inception's.

    Its expectation is 0 for two samples of one distribution, so small values of either sign mean "alike". More than
    1000 rows are cut into blocks, whose mean is returned; rows are put in random order first, as the estimator asks.

    Args and errors are those of `frechet_distance`.
    """
    real, synthetic = _pair(real, synthetic)
    import tensorflow as tf
    import tensorflow_gan as tfgan

    rng = numpy_generator(0, "kernel_distance")
    real, synthetic = rng.permutation(real), rng.permutation(synthetic)
    distance = tfgan.eval.kernel_classifier_distance_from_activations(
        tf.constant(real), tf.constant(synthetic), max_block_size=_BLOCK
    )
    return float(distance)


def _pair(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real = require_features(real, "real images", least=2)
    synthetic = require_features(synthetic, "synthetic images", least=2)
    if real.shape[1] != synthetic.shape[1]:
        raise DataError(f"features of real images have {real.shape[1]} columns, of synthetic ones {synthetic.shape[1]}")
    return real, synthetic
