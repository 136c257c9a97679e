"""Batches that several replicas can share."""

from __future__ import annotations

import tensorflow as tf


def evenly(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Held-out batches such that each replica gets as many examples of each as the others.

    A smaller last batch would leave a replica without any, and convolutions of nothing fail. So with several replicas batches hold
    one example for each, and the last one is filled up with examples from the beginning, which then count twice.

    Args:
        dataset: batches of one pass, of any sizes.
        replicas: how many share a batch; with one the data set stays as it is.
    """
    if replicas == 1:
        return dataset
    examples = dataset.unbatch()
    return examples.concatenate(examples.repeat().take(replicas - 1)).batch(replicas, drop_remainder=True)
