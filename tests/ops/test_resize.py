import numpy as np
import tensorflow as tf

from medsynth_tf.ops.resize import downsample_nearest, halve_by_average, upsample_nearest


def test_upsampling_repeats_pixels_and_down_sampling_takes_them_back():
    x = np.random.default_rng(0).normal(size=[2, 3, 5, 4]).astype(np.float32)
    up = upsample_nearest(tf.constant(x), 3)
    np.testing.assert_array_equal(up, x.repeat(3, 1).repeat(3, 2))
    np.testing.assert_array_equal(downsample_nearest(up, 3), x)


def test_upsampling_has_a_second_derivative():
    x = tf.Variable([[[[2.0]]]])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = tf.reduce_sum(upsample_nearest(x) ** 3)
        first = inner.gradient(y, x)
    assert float(first) == 48.0
    assert float(outer.gradient(first, x)) == 48.0


def test_halving_averages_symmetric_windows_without_counting_the_padding():
    x = np.random.default_rng(1).normal(size=[1, 6, 5, 2])
    halved = halve_by_average(tf.constant(x))
    assert halved.shape == [1, 3, 3, 2]
    for row in range(3):
        for column in range(3):
            window = x[0, max(0, 2 * row - 1) : 2 * row + 2, max(0, 2 * column - 1) : 2 * column + 2]
            np.testing.assert_allclose(halved[0, row, column], window.mean((0, 1)))
