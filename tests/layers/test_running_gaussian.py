"""Moments of what went by."""

import numpy as np
import tensorflow as tf

from medsynth_tf.layers.running_gaussian import RunningGaussian


def observed(directions, examples, batch=50):
    layer = RunningGaussian(examples.shape[1:], directions)
    for first in range(0, len(examples), batch):
        layer.observe(tf.constant(examples[first : first + batch]), tf.range(first, first + batch, dtype=tf.int64))
    return layer


def correlated(count=2000):
    """Examples [count, 2, 3] with a mean and a covariance of their own, and these."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=[6, 6]) * [3, 2, 1, 0.5, 0.2, 0.1]
    flat = rng.normal(size=[count, 6]) @ mixing.T + np.arange(6)
    return flat.reshape(count, 2, 3).astype(np.float32), flat.mean(0), np.cov(flat.T, bias=True)


def test_draws_have_the_mean_and_the_covariance_of_the_examples():
    examples, mean, covariance = correlated()
    layer = observed(2000, examples)
    assert int(layer.observed) == 2000
    np.testing.assert_allclose(layer.mean.numpy().ravel(), mean, atol=1e-4)
    draws = layer(tf.range(20_000, dtype=tf.int64)).numpy().reshape(20_000, 6)
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.03 * spread.max())
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(spread, spread), covariance / np.outer(spread, spread), atol=0.1)


def test_the_mean_is_taken_out_of_the_directions():
    examples = np.full([200, 4], 7.0, np.float32)  # no deviation from the mean, however the factors fall
    np.testing.assert_allclose(observed(16, examples)(tf.range(5, dtype=tf.int64)), 7.0, atol=1e-3)


def test_nothing_observed_or_forgotten_is_zero_and_draws_depend_on_their_seed_alone():
    layer = RunningGaussian([3])
    np.testing.assert_array_equal(layer(tf.constant([1, 2], tf.int64)), np.zeros([2, 3]))
    layer.observe(tf.random.stateless_normal([8, 3], [1, 2]), tf.range(8, dtype=tf.int64))
    draws = layer(tf.constant([5, 6], tf.int64)).numpy()
    np.testing.assert_allclose(layer(tf.constant([6], tf.int64)), draws[1:], atol=1e-6)
    assert np.abs(draws[0] - draws[1]).max() > 1e-3
    layer.reset()
    np.testing.assert_array_equal(layer(tf.constant([5], tf.int64)), np.zeros([1, 3]))
    assert RunningGaussian.from_config(layer.get_config()).get_config() == layer.get_config()
