import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from medsynth_tf.losses.adversarial import hinge_discriminator, hinge_generator
from medsynth_tf.losses.divergence import gaussian_kl


@pytest.mark.parametrize(("real", "fake", "expected"), [(2.0, -2.0, 0.0), (0.0, 0.0, 2.0), (-1.0, 0.5, 3.5)])
def test_hinge_values(real, fake, expected):
    assert float(hinge_discriminator(tf.fill([2, 3], real), tf.fill([2, 3], fake))) == pytest.approx(expected)
    assert float(hinge_generator(tf.fill([2, 3], fake))) == pytest.approx(-fake)


def test_kl_equals_tensorflow_probability():
    mean = np.random.default_rng(0).normal(size=[5, 7]).astype(np.float32)
    log_variance = np.random.default_rng(1).normal(size=[5, 7]).astype(np.float32)
    posterior = tfp.distributions.MultivariateNormalDiag(mean, np.exp(log_variance / 2))
    prior = tfp.distributions.MultivariateNormalDiag(np.zeros([5, 7], np.float32))
    expected = tfp.distributions.kl_divergence(posterior, prior).numpy().mean()
    assert float(gaussian_kl(mean, log_variance)) == pytest.approx(expected, rel=1e-5)
