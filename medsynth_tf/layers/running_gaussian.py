"""Mean and covariance of what goes by, in the memory of a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.ops import random


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class RunningGaussian(tf.keras.layers.Layer):
    """The Gaussian with the mean and, nearly, the covariance of all examples observed.

    The covariance of images has too many entries to keep. Sums of all examples with random factors ε ~ N(0, 1), less their share of
    the mean, d = Σᵢ εᵢ·(xᵢ - μ)/√n, have that covariance themselves, so that K of them stand for it: Σ ≈ (1/K)·Σₖ dₖ·dₖᵀ, a random
    projection, unbiased and of rank K.

    Args:
        shape: of an example.
        directions: K.
    """

    def __init__(self, shape: Sequence[int], directions: int = 64, **kwargs: Any):
        kwargs.setdefault("dtype", tf.float32)
        super().__init__(**{"trainable": False, **kwargs})
        self.shape, self.directions = tuple(shape), directions
        common: dict[str, Any] = {"initializer": "zeros", "trainable": False}
        mean = {**common, "dtype": tf.float32, "aggregation": tf.VariableAggregation.MEAN}
        self.observed = self.add_weight(
            name="observed", shape=[], dtype=tf.int64, aggregation=tf.VariableAggregation.SUM, **common
        )
        self.mean = self.add_weight(name="mean", shape=self.shape, **mean)
        self.mixtures = self.add_weight(name="mixtures", shape=[directions, *self.shape], **mean)  # (1/n)·Σᵢ εᵢ·xᵢ
        self.loads = self.add_weight(name="loads", shape=[directions], **mean)  # (1/n)·Σᵢ εᵢ
        self.built = True

    def observe(self, examples: tf.Tensor, seeds: tf.Tensor) -> None:
        """Adds examples float32 [B, ...]; their factors depend on the seeds int64 [B]. Replicas add theirs in the same step."""
        context = tf.distribute.get_replica_context()
        batch = tf.shape(examples)[0]
        factors = random.normal(seeds, (self.directions,), "running Gaussian")
        flat = tf.reshape(examples, [batch, -1])
        mixed = tf.reshape(tf.matmul(factors, flat, transpose_a=True), [self.directions, *self.shape])
        before = tf.identity(self.observed)
        together = batch * context.num_replicas_in_sync
        share = tf.cast(together, tf.float32) / tf.cast(before + tf.cast(together, tf.int64), tf.float32)
        self.observed.assign_add(tf.cast(batch, tf.int64))
        count = tf.cast(batch, tf.float32)
        self.mean.assign_add(share * (tf.reduce_mean(examples, axis=0) - self.mean))
        self.mixtures.assign_add(share * (mixed / count - self.mixtures))
        self.loads.assign_add(share * (tf.reduce_mean(factors, axis=0) - self.loads))

    def reset(self) -> None:
        """Forgets all examples."""
        for variable in self.weights:
            variable.assign(tf.zeros_like(variable))

    def call(self, seeds: tf.Tensor) -> tf.Tensor:
        """Draws, float32 [B, ...], one for each of the seeds int64 [B]; 0 before anything was observed."""
        deviations = tf.reshape(self.mixtures, [self.directions, -1])
        deviations -= self.loads[:, tf.newaxis] * tf.reshape(self.mean, [1, -1])
        scale = tf.sqrt(tf.cast(self.observed, tf.float32) / self.directions)
        drawn = tf.matmul(random.normal(seeds, (self.directions,), "running Gaussian, drawn"), deviations)
        return self.mean + scale * tf.reshape(drawn, [-1, *self.shape])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "shape": list(self.shape), "directions": self.directions}
