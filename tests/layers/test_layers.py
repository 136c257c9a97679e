import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.layers.normalization import (
    BatchNormalization,
    BatchStatisticsNormalization,
    GroupNormalization,
    InstanceNormalization,
    SpectralConv2D,
)
from medsynth_tf.layers.spade import SPADE, SPADEResidualBlock


@pytest.mark.parametrize(
    ("layer", "two_inputs"),
    [
        (InstanceNormalization(1e-3), False),
        (GroupNormalization(2, 1e-4), False),
        (BatchStatisticsNormalization(0.8, 1e-4), False),
        (BatchNormalization(0.8, 1e-4, tf.keras.initializers.RandomNormal(1.0, 0.02, seed=3)), False),
        (SpectralConv2D(5, 3, 2, "same", seed=4, power_iterations=2), False),
        (SPADE(6, "instance", seed=2), True),
        (SPADEResidualBlock(3, 6, "batch", seed=2), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_rebuild_from_their_configuration_with_equal_weights_and_known_shapes(layer, two_inputs):
    x = tf.random.stateless_normal([2, 8, 8, 4], [0, 1])
    inputs = (x, tf.random.stateless_uniform([2, 8, 8, 3], [1, 2])) if two_inputs else x
    expected = layer(inputs)
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(layer))
    output = again(inputs)
    assert again.get_config() == layer.get_config()
    if not isinstance(layer, SpectralConv2D):  # its kernel initialiser is Keras's own, unseeded here
        np.testing.assert_array_equal(output, expected)
    shapes = (x.shape, inputs[1].shape) if two_inputs else x.shape
    assert tf.TensorShape(layer.compute_output_shape(shapes)) == expected.shape


def test_batch_statistics_normalise_by_the_batch_and_remember_it():
    x = np.random.default_rng(0).normal(5.0, 3.0, [6, 4, 4, 3]).astype(np.float32)
    layer = BatchStatisticsNormalization(momentum=0.75)
    y = layer(x, training=True)
    mean, variance = x.astype(np.float64).mean((0, 1, 2)), x.astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=2e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.75 + 0.25 * variance, rtol=1e-5)
    inference = layer(x)
    np.testing.assert_allclose(inference, (x - 0.25 * mean) / np.sqrt(0.75 + 0.25 * variance + 1e-5), rtol=1e-4, atol=1e-5)


def test_batch_normalisation_scales_and_shifts_in_training_and_inference():
    x = np.random.default_rng(0).normal(5.0, 3.0, [6, 4, 4, 3]).astype(np.float32)
    plain, layer = BatchStatisticsNormalization(0.75), BatchNormalization(0.75)
    layer(x)
    layer.gamma.assign([1.0, 2.0, -3.0])
    layer.beta.assign([0.5, 0.0, 1.0])
    for training in (True, False):
        expected = plain(x, training=training) * layer.gamma + layer.beta
        np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-5, atol=1e-5)
    assert [v.name.split("/")[-1] for v in layer.trainable_variables] == ["gamma:0", "beta:0"]


def test_instance_norm_is_per_sample_and_channel_in_any_number_of_dimensions():
    x = np.random.default_rng(1).normal(size=[2, 3, 4, 5, 2])
    y = InstanceNormalization()(tf.constant(x, tf.float32)).numpy()
    expected = (x - x.mean((1, 2, 3), keepdims=True)) / np.sqrt(x.var((1, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)


SERVED = """
import sys
import tensorflow as tf
from medsynth_tf.layers.spade import SPADE
layer, x, label = SPADE(8, "instance"), tf.random.normal([2, 16, 16, 8]), tf.random.normal([2, 16, 16, 3])
expected = layer((x, label))
@tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 8]), tf.TensorSpec([None, 16, 16, 3])])
def call(x, label):
    return {"y": tf.nn.leaky_relu(layer((x, label)), 0.2)}
module = tf.Module()
module.variables_used = layer.variables
tf.saved_model.save(module, sys.argv[1], signatures=call)
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"](x=x, label=label)["y"]
tf.debugging.assert_near(served, tf.nn.leaky_relu(expected, 0.2), 1e-4, 1e-4)
"""


def test_instance_norm_before_a_learned_scale_survives_the_graph_optimiser(tmp_path):
    """In a process of its own: the optimiser would abort it."""
    done = subprocess.run([sys.executable, "-c", SERVED, tmp_path / "model"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_group_norm_is_keras_own_and_refuses_uneven_groups():
    x = tf.random.stateless_normal([3, 5, 7, 6], [0, 1], mean=4.0, stddev=3.0)
    ours, keras = GroupNormalization(3), tf.keras.layers.GroupNormalization(3, epsilon=1e-5)
    ours(x), keras(x)
    weights = [np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)]
    ours.set_weights(weights)
    keras.set_weights(weights)
    np.testing.assert_allclose(ours(x), keras(x), atol=1e-5)
    with pytest.raises(ValueError, match="must divide the 6 channels"):
        GroupNormalization(4)(x)
