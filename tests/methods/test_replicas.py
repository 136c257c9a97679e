"""Held-out batches that replicas share."""

import tensorflow as tf

from medsynth_tf.methods.replicas import evenly


def test_each_replica_gets_as_many_examples_as_the_others():
    batches = tf.data.Dataset.range(7).map(lambda i: {"value": i}).batch(4)
    assert [batch["value"].numpy().tolist() for batch in evenly(batches, 1)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [batch["value"].numpy().tolist() for batch in evenly(batches, 2)] == [[0, 1], [2, 3], [4, 5], [6, 0]]
    assert [batch["value"].numpy().tolist() for batch in evenly(batches, 3)] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert [batch["value"].numpy().tolist() for batch in evenly(batches.take(1).unbatch().take(1).batch(4), 3)] == [[0, 0, 0]]
    assert list(evenly(batches.take(0), 2)) == []
