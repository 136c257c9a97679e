"""Conditional batch norm: statistics of the whole batch, a scale and an offset of each class."""

import numpy as np
import tensorflow as tf

from medsynth_tf.layers.conditional_normalization import ConditionalBatchNormalization


def noise(shape=(6, 3, 3, 4), seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


def test_each_class_scales_and_shifts_what_the_whole_batch_normalises():
    layer, x, label = ConditionalBatchNormalization(3, seed=1), noise(), np.array([0, 2, 2, 0, 1, 2])
    layer.build(([None, 3, 3, 4], [None]))
    layer.beta.assign(np.arange(12.0).reshape(3, 4))
    y = layer((x, label), training=True)
    normalised = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    gamma, beta = (table.numpy()[label][:, None, None] for table in (layer.gamma, layer.beta))
    np.testing.assert_allclose(y, normalised * gamma + beta, atol=1e-5)
    assert np.unique(layer.gamma.numpy()).size == 12
    np.testing.assert_allclose(layer.norm.moving_mean, 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    moving = layer.norm.moving_mean, layer.norm.moving_variance
    layer((noise(seed=5), label))
    expected = (x - moving[0].numpy()) / np.sqrt(moving[1].numpy() + 1e-5) * gamma + beta
    np.testing.assert_allclose(layer((x, label)), expected, rtol=1e-4, atol=1e-4)


def test_only_the_classes_of_the_batch_learn():
    layer, x = ConditionalBatchNormalization(4), noise()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer((x, np.array([1, 1, 3, 3, 3, 1])), training=True) * noise(seed=1))
    for gradient in tape.gradient(loss, [layer.gamma, layer.beta]):
        moved = np.abs(tf.convert_to_tensor(gradient)).max(-1) > 0
        np.testing.assert_array_equal(moved, [False, True, False, True])


def test_its_configuration_makes_it_again():
    layer = ConditionalBatchNormalization(3, gamma_deviation=0.5, seed=4)
    again = ConditionalBatchNormalization.from_config(layer.get_config())
    for one in (layer, again):
        one.build(([None, 3, 3, 4], [None]))
    np.testing.assert_array_equal(again.gamma, layer.gamma)
