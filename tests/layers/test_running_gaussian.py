"""Moments of what went by."""

import json
import subprocess
import sys
from pathlib import Path

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
    spread = np.sqrt(np.diag(covariance))
    # what draws have in the limit, of 2000 mixtures: known without drawing
    mixed = layer.mixtures.numpy().reshape(2000, 6) - layer.loads.numpy()[:, None] * mean
    kept = mixed.T @ mixed  # n / K is 1
    np.testing.assert_allclose(kept / np.outer(spread, spread), covariance / np.outer(spread, spread), atol=0.1)
    draws = layer(tf.range(4000, dtype=tf.int64)).numpy().reshape(4000, 6)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.03 * spread.max())
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(spread, spread), kept / np.outer(spread, spread), atol=0.1)


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


MIRRORED = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from medsynth_tf.layers.running_gaussian import RunningGaussian
from tests.layers.test_running_gaussian import correlated
examples = tf.constant(correlated(24)[0])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
with strategy.scope():
    layer = RunningGaussian(examples.shape[1:], 16)

def replica(first):
    context = tf.distribute.get_replica_context()
    part = first + 4 * tf.cast(context.replica_id_in_sync_group, tf.int32) + tf.range(4)
    layer.observe(tf.gather(examples, part), tf.cast(part, tf.int64))

observe = tf.function(lambda first: strategy.run(replica, (first,)), autograph=False)
for first in (0, 8, 16):
    observe(tf.constant(first))
print(json.dumps([weight.numpy().tolist() for weight in layer.weights]))
"""


def test_two_replicas_observe_what_one_device_does():
    """In three steps, so that the variables are not 0, whose sum over replicas would be no different."""
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shared = json.loads(done.stdout.strip().splitlines()[-1])
    alone = observed(16, correlated(24)[0], batch=8).weights
    assert shared[0] == 24
    for values, weight in zip(shared, alone, strict=True):
        np.testing.assert_allclose(values, weight.numpy(), atol=1e-5)
