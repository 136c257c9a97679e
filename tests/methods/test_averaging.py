import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.methods.averaging import WeightAverage


def test_averages_follow_the_weights_by_the_decay():
    weight = tf.Variable([1.0, 2.0])
    average = WeightAverage([weight], decay=0.75)
    expected = np.array([1.0, 2.0])
    step = tf.function(average.update)
    for value in ([3.0, 0.0], [-1.0, 4.0], [5.0, 5.0]):
        weight.assign(value)
        step()
        expected = 0.75 * expected + 0.25 * np.array(value)
    np.testing.assert_allclose(average.averages[0], expected, rtol=1e-6)


def test_averages_are_applied_within_the_block_and_weights_come_back_even_after_an_error():
    weight = tf.Variable([1.0])
    average = WeightAverage([weight], decay=0.5)
    weight.assign([3.0])
    average.update()
    with pytest.raises(KeyError), average.applied():
        assert float(weight[0]) == 2.0
        raise KeyError
    assert float(weight[0]) == 3.0
    assert float(average.averages[0][0]) == 2.0


def test_replicas_share_one_average():
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        weight = tf.Variable([1.0])
        average = WeightAverage([weight], decay=0.5)
    weight.assign([3.0])
    strategy.run(tf.function(average.update))
    np.testing.assert_allclose(average.averages[0], [2.0])


def test_the_average_is_a_copy_until_the_warm_up_is_over():
    weight = tf.Variable([0.0])
    average = WeightAverage([weight], decay=0.75, warmup=2)
    step = tf.function(average.update)
    seen = []
    for value in (4.0, 8.0, 16.0, 32.0):
        weight.assign([value])
        step()
        seen.append(float(average.averages[0][0]))
    assert seen == [4.0, 8.0, 0.75 * 8 + 0.25 * 16, 0.75 * 10 + 0.25 * 32]


def test_replicas_count_the_warm_up_once():
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        weight = tf.Variable([1.0])
        average = WeightAverage([weight], decay=0.5, warmup=1)
    for value, expected in ((3.0, 3.0), (5.0, 4.0)):
        weight.assign([value])
        strategy.run(tf.function(average.update))
        np.testing.assert_allclose(average.averages[0], [expected])
