"""Learned fusion of views, an option of the parent method (Perslev et al., 2019): a weight for each view and class, then softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.losses.masked import masked_binary_cross_entropy
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.segmentation.multiplanar_unet.config import MultiPlanarUNetConfig


class ViewFusion(Optimisation, tf.keras.Model):
    """z_c = Σ_k W[k, c] p_k,c + b[c] and softmax over background and foreground, p_k,0 = 1 - p_k,1; W starts at 1 and b at 0.

    Call it on the views' foreground probabilities [N, K] for the fused one [N].

    Args:
        config: of the method.
        views: K.
    """

    def __init__(self, config: MultiPlanarUNetConfig, views: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.distribute_reduction_method = "first"
        self.view_weights = self.add_weight(name="view_weights", shape=[views, 2], initializer="ones", dtype=tf.float32)
        self.class_bias = self.add_weight(name="class_bias", shape=[2], initializer="zeros", dtype=tf.float32)
        self.loss_mean = tf.keras.metrics.Mean(name="fusion")
        self.built = True

    def score(self, probability: tf.Tensor, view: int | tf.Tensor) -> tf.Tensor:
        """A view's part of z_1 - z_0, of its foreground probabilities, same shape; linear, so it may be interpolated."""
        weights = tf.convert_to_tensor(self.view_weights)[view]
        return weights[1] * probability - weights[0] * (1.0 - probability)

    def decide(self, total: tf.Tensor) -> tf.Tensor:
        """The fused foreground probability, of the sum of all views' scores."""
        return tf.sigmoid(self.logits_of(total))

    def logits_of(self, total: tf.Tensor) -> tf.Tensor:
        """z_1 - z_0."""
        bias = tf.convert_to_tensor(self.class_bias)
        return total + bias[1] - bias[0]

    def logits(self, views: tf.Tensor) -> tf.Tensor:
        """float32 [N, K] → [N]."""
        return self.logits_of(tf.add_n([self.score(views[:, number], number) for number in range(views.shape[-1])]))

    def call(self, views: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [N, K] → [N]."""
        return tf.sigmoid(self.logits(views))

    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with Adam."""
        own = self.config.optimiser
        optimizer = self.make_adam(self.config.fusion.learning_rate, own.beta_1, own.beta_2, own.epsilon)
        super().compile(optimizer=optimizer, **kwargs)
        optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running mean of the loss."""
        return [self.loss_mean]

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Cross-entropy of annotated voxels, and the decay of the weights."""
        with tf.GradientTape() as tape:
            total, count = masked_binary_cross_entropy(
                self.logits(batch["views"]), batch["label"], tf.ones_like(batch["views"][:, 0])
            )
            loss = total / count + self.config.fusion.l2 * tf.reduce_sum(self.view_weights**2)
            objective = self.replica_loss(loss, self.optimizer)
        variables = self.trainable_variables
        self.apply(self.optimizer, tape.gradient(objective, variables), variables)
        self.loss_mean.update_state(loss)
        return {"fusion": self.loss_mean.result()}

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The weights as grey squares, views from top to bottom, background left; 0 is black, 2 white: uint8 [1, 8K, 16, 1]."""
        del batch
        grey = tf.saturate_cast(127.5 * self.view_weights, tf.uint8)
        return {"weights": tf.repeat(tf.repeat(grey, 8, 0), 8, 1)[tf.newaxis, ..., tf.newaxis]}


def fusion_batches(views: np.ndarray, labels: np.ndarray, batch: int, seed: int, first_step: int) -> tf.data.Dataset:
    """Endless batches {"views": float32 [batch, K], "label": uint8 [batch]} of annotated voxels, drawn with replacement by step.

    Args:
        views: float32 [N, K].
        labels: uint8 [N], 0 or 1.
        batch: voxels of each.
        seed: of the draws.
        first_step: batches to pass over.
    """
    known, codes = tf.constant(views), tf.constant(labels)

    def one(step: tf.Tensor) -> dict[str, tf.Tensor]:
        key = tf.stack([tf.constant(seed, tf.int64), step])
        chosen = tf.random.stateless_uniform([batch], key, 0, len(views), tf.int64)
        return {"views": tf.gather(known, chosen), "label": tf.gather(codes, chosen)}

    return tf.data.Dataset.range(first_step, 2**62).map(one)
