"""How a method, or a part of one with a train step of its own, turns losses into updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class Optimisation:
    """For Keras models with a method's `config`: losses over replicas, loss scaling for float16, clipping."""

    config: Any
    distribute_strategy: tf.distribute.Strategy

    def make_adam(
        self, learning_rate: float, beta_1: float, beta_2: float, epsilon: float = 1e-7
    ) -> tf.keras.optimizers.Optimizer:
        """Adam that clips the global norm after summing replicas, as the training configuration asks, with loss scaling for
        float16."""
        optimizer = tf.keras.optimizers.Adam(
            learning_rate, beta_1, beta_2, epsilon, global_clipnorm=self.config.training.clip_norm
        )
        return self.with_loss_scale(optimizer)

    def with_loss_scale(self, optimizer: tf.keras.optimizers.Optimizer) -> tf.keras.optimizers.Optimizer:
        """The optimiser, wrapped in dynamic loss scaling if the model computes in float16."""
        scaled = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
        if self.config.training.mixed_precision == "float16" and not scaled:
            return tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
        return optimizer

    def replica_loss(self, loss: tf.Tensor, optimizer: tf.keras.optimizers.Optimizer) -> tf.Tensor:
        """What a replica differentiates: its mean loss over the number of replicas (their gradients are summed), times the loss
        scale if there is one."""
        loss = loss / self.distribute_strategy.num_replicas_in_sync
        if isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
            loss = optimizer.get_scaled_loss(loss)
        return loss

    @staticmethod
    def apply(
        optimizer: tf.keras.optimizers.Optimizer, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]
    ) -> None:
        """Applies the gradients of a `replica_loss`."""
        if isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(zip(gradients, variables))
