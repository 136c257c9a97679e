"""What steps report."""

import pytest
import tensorflow as tf

from medsynth_tf.methods.running_means import recorded


def test_means_are_of_all_steps_and_of_their_own_values():
    means = {name: tf.keras.metrics.Mean(name=name) for name in ("second", "first")}
    recorded(means, {"first": tf.constant(1.0), "second": tf.constant(10.0), "other": tf.constant(5.0)})
    shown = recorded(means, {"first": tf.constant(3.0), "second": tf.constant(30.0)})
    assert {name: float(value) for name, value in shown.items()} == {"second": 20.0, "first": 2.0}
    assert list(shown) == ["second", "first"]
    with pytest.raises(KeyError, match="second"):
        recorded(means, {"first": tf.constant(1.0)})
