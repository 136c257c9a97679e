"""Dice of annotated pixels over many batches, as a Keras metric."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class MaskedDice(tf.keras.metrics.Metric):
    """2 Σ m·a·b / (Σ m·a + Σ m·b) over all pixels since the last reset, not a mean over batches; 1 where both sums are empty."""

    def __init__(self, name: str = "dice", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.common = self.add_weight(name="common", initializer="zeros")
        self.sizes = self.add_weight(name="sizes", initializer="zeros")

    def update_state(self, predicted: tf.Tensor, truth: tf.Tensor, weights: tf.Tensor) -> None:
        """Three tensors of one shape, of 0 and 1 or bool."""
        predicted, truth, weights = (tf.cast(value, tf.float32) for value in (predicted, truth, weights))
        self.common.assign_add(tf.reduce_sum(predicted * truth * weights))
        self.sizes.assign_add(tf.reduce_sum((predicted + truth) * weights))

    def result(self) -> tf.Tensor:
        """float32 scalar."""
        return tf.where(self.sizes > 0, 2.0 * self.common / tf.maximum(self.sizes, 1.0), 1.0)
