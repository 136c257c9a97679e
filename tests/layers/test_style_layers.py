"""The layers that StyleGAN is made of, each against its formula."""

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.layers.adaptive_normalization import StyleModulation
from medsynth_tf.layers.equalised import EqualisedConv2D, EqualisedDense
from medsynth_tf.layers.minibatch_deviation import MinibatchDeviation
from medsynth_tf.layers.noise_injection import NoiseInjection
from medsynth_tf.layers.normalization import PixelNormalization
from medsynth_tf.layers.running_class_mean import RunningClassMean


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (EqualisedDense(5, gain=1.5, learning_rate_multiplier=0.1, seed=3), [(4, 8, 6)]),
        (EqualisedConv2D(5, 3, gain=1.0, strides=2, padding="same", seed=3), [(4, 8, 8, 6)]),
        (PixelNormalization(1e-4), [(4, 8, 8, 6)]),
        (MinibatchDeviation(2), [(4, 8, 8, 6)]),
        (NoiseInjection(), [(4, 8, 8, 6), (4, 8, 8, 1)]),
        (StyleModulation(seed=3), [(4, 8, 8, 6), (4, 7)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_rebuild_from_their_configuration_with_equal_weights_and_known_shapes(layer, shapes):
    inputs = tuple(noise(*shape) for shape in shapes)
    inputs = inputs if len(inputs) > 1 else inputs[0]
    expected = layer(inputs)
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(layer))
    np.testing.assert_array_equal(again(inputs), expected)
    assert again.get_config() == layer.get_config()
    shape = tuple(tf.TensorShape(shape) for shape in shapes) if len(shapes) > 1 else tf.TensorShape(shapes[0])
    assert tf.TensorShape(layer.compute_output_shape(shape)) == expected.shape


# -- equalised learning rates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 2**0.5])
@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_dense_kernels_have_hes_deviation_when_called_and_unit_deviation_over_the_multiplier_when_stored(gain, multiplier):
    layer, x = EqualisedDense(400, gain, multiplier, seed=1), noise(3, 300)
    y = layer(x).numpy()
    kernel = layer.kernel.numpy()
    assert kernel.std() == pytest.approx(1 / multiplier, rel=0.02)
    np.testing.assert_allclose(y, x @ kernel * (gain * multiplier / np.sqrt(300)), atol=1e-4)
    assert layer.scaled_kernel().numpy().std() == pytest.approx(gain / np.sqrt(300), rel=0.02)
    layer.bias.assign(np.full(400, 2.0))
    np.testing.assert_allclose(layer(x), y + 2 * multiplier, atol=1e-4)


def test_convolutions_are_keras_own_with_the_scaled_kernel():
    layer, x = EqualisedConv2D(40, 3, strides=2, padding="same", seed=1), noise(2, 8, 8, 30)
    layer(x)
    layer.bias.assign(noise(40, seed=2))
    assert layer.kernel.numpy().std() == pytest.approx(1.0, rel=0.02)
    kernel = layer.kernel.numpy() * np.sqrt(2 / (9 * 30))
    np.testing.assert_allclose(layer(x), tf.nn.conv2d(x, kernel, 2, "SAME") + layer.bias, atol=1e-5)


def test_steps_of_one_size_change_every_kernel_by_the_same_share_and_by_the_multiplier_less():
    changes = []
    for fan_in, multiplier in ((10, 1.0), (1000, 1.0), (1000, 0.01)):
        layer = EqualisedDense(200, learning_rate_multiplier=multiplier, seed=1)
        layer.build([None, fan_in])
        before = layer.scaled_kernel().numpy()
        layer.kernel.assign_add(
            tf.fill(layer.kernel.shape, 0.01)
        )  # as Adam's steps, which do not depend on the gradient's scale
        changes.append(np.abs(layer.scaled_kernel() - before).mean() / before.std())
    np.testing.assert_allclose(changes, [0.01, 0.01, 0.0001], rtol=0.05)


def test_activations_and_layers_without_bias_are_as_keras_has_them():
    x = noise(5, 7)
    layer = EqualisedDense(3, use_bias=False, activation="relu", seed=1)
    np.testing.assert_allclose(layer(x), np.maximum(x @ layer.scaled_kernel().numpy(), 0.0), atol=1e-6)
    assert len(layer.weights) == 1
    layer, x = EqualisedConv2D(3, 3, use_bias=False, activation="relu", seed=1), noise(2, 5, 5, 4)
    assert float(tf.reduce_min(layer(x))) == 0.0
    assert len(layer.weights) == 1


# -- normalisation and modulation -------------------------------------------------------------------------------------------


def test_pixel_norm_brings_each_vector_to_unit_mean_square():
    x = 5 * noise(3, 4, 4, 6) + 2
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)
    np.testing.assert_allclose(PixelNormalization()(x), expected, rtol=1e-5)
    np.testing.assert_allclose(PixelNormalization()(x[:, 0, 0]), expected[:, 0, 0], rtol=1e-5)
    half = PixelNormalization(dtype="mixed_float16")(1000 * x)  # their squares are beyond half precision
    assert half.dtype == tf.float16
    np.testing.assert_allclose(half, expected, rtol=2e-3)


def test_a_style_scales_and_shifts_each_channel_by_an_affine_function():
    layer, x, style = StyleModulation(seed=1), noise(3, 4, 5, 6), noise(3, 7, seed=1)
    np.testing.assert_allclose(layer((x, np.zeros([3, 7], np.float32))), x, atol=1e-6)  # y_s is 1 and y_b 0 without a style
    layer.affine.bias.assign(noise(12, seed=2))
    affine = style @ layer.affine.kernel.numpy() / np.sqrt(7) + layer.affine.bias.numpy()
    expected = (1 + affine[:, None, None, :6]) * x + affine[:, None, None, 6:]
    np.testing.assert_allclose(layer((x, style)), expected, atol=1e-5)
    assert layer.affine.kernel.numpy().std() == pytest.approx(1.0, rel=0.2)


def test_noise_is_the_same_for_all_channels_and_has_no_strength_at_first():
    layer, x, maps = NoiseInjection(), noise(3, 4, 5, 6), noise(3, 4, 5, 1, seed=1)
    np.testing.assert_array_equal(layer((x, maps)), x)
    layer.strength.assign(np.arange(6.0))
    np.testing.assert_allclose(layer((x, maps)), x + np.arange(6) * maps, rtol=1e-6)


# -- the batch's variety ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "size", "groups"), [(6, 3, [(0, 3), (3, 6)]), (3, 4, [(0, 3)]), (2, 1, [(0, 1), (1, 2)])])
def test_the_last_channel_is_the_groups_mean_deviation(batch, size, groups):
    x = noise(batch, 4, 5, 6) * np.arange(1, batch + 1)[:, None, None, None].astype(np.float32)
    y = MinibatchDeviation(size)(x).numpy()
    np.testing.assert_array_equal(y[..., :6], x)
    for first, last in groups:
        expected = np.sqrt(x[first:last].var(0) + 1e-8).mean()
        np.testing.assert_allclose(y[first:last, ..., 6], expected, rtol=1e-5)


def test_equal_samples_have_no_variety_and_yet_a_gradient():
    x = tf.constant(np.repeat(noise(1, 2, 2, 3), 4, 0))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = MinibatchDeviation()(x)
    assert float(tf.reduce_max(y[..., 3])) < 2e-4
    assert np.isfinite(tape.gradient(y, x)).all()


def test_a_batch_that_is_no_multiple_of_the_group_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="multiple of the 4 samples of a group"):
        MinibatchDeviation(4)(noise(6, 2, 2, 3))


# -- running means ----------------------------------------------------------------------------------------------------------


def test_running_means_of_classes_follow_the_batches_that_have_them():
    layer = RunningClassMean(3, 4, decay=0.9)
    x, label = noise(5, 4), np.array([2, 0, 2, 2, 0])
    for _ in range(7):
        layer.observe(tf.constant(x), tf.constant(label))
    share = 1 - 0.9**7
    means = layer(tf.range(3)).numpy()
    np.testing.assert_allclose(means[0], share * x[label == 0].mean(0), rtol=1e-5)
    np.testing.assert_allclose(means[2], share * x[label == 2].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(means[1], np.zeros(4))
    layer.observe(tf.constant(x[:1]), tf.constant([1]))  # the others stay where they are
    np.testing.assert_allclose(layer(tf.range(3)), [means[0], 0.1 * x[0], means[2]], rtol=1e-5)
    assert layer.trainable_variables == []
    assert RunningClassMean.from_config(layer.get_config()).get_config() == layer.get_config()
