"""Adaptive discriminator augmentation: what a discriminator sees is changed as often as its overfitting asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.ops import random
from medsynth_tf.ops.affine import affine, quarter_turns


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class AdaptiveAugmentation(tf.keras.layers.Layer):
    """Each image, with probability p for each change: turned by a multiple of 90°, moved by an affine map, covered with noise.

    The simplified form of semantic_retina's authors after Karras et al. (arXiv:2006.06676, section 3): affine maps turn by any angle,
    shift by up to half the side and scale by 0.8 to 1.2; noise is Gaussian with standard deviation p. Real and fake images both go
    through it, in both players' steps; it is differentiable. `update` moves p by one `step` after each discriminator step: up if
    r = E[sign(D(real))] is above `target`, else down, within [0, `maximum`].

    Args:
        fill: value of each channel outside an image, [C] or one number; (0, …, 0, 1) is the background of one-hot label planes.
        target: of r (0.6).
        step: by which p moves (0.01).
        maximum: of p (0.85).
        fixed_probability: this p for ever, or None to adapt from 0.
    """

    def __init__(
        self,
        fill: Sequence[float] | float = 0.0,
        target: float = 0.6,
        step: float = 0.01,
        maximum: float = 0.85,
        fixed_probability: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            trainable=False, **{"autocast": False, **kwargs}
        )  # images stay float32 in mixed precision, as draws are
        self.fill = float(fill) if isinstance(fill, (int, float)) else tuple(float(value) for value in fill)
        self.target, self.step, self.maximum, self.fixed_probability = target, step, maximum, fixed_probability
        self.probability = self.add_weight(
            name="probability",
            shape=[],
            dtype=tf.float32,
            trainable=False,
            initializer=tf.keras.initializers.Constant(fixed_probability or 0.0),
            experimental_autocast=False,
            # every replica moves its own copy by the same amount
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, images: tf.Tensor, seeds: tf.Tensor, use: str = "augmentation") -> tf.Tensor:
        """Images float32 [B, S, S, C] and a seed int64 [B] for each → the same shape; `use` names the draw, for several a step."""
        draws = random.uniform(seeds, (9,), f"{use}/draws")
        p = tf.convert_to_tensor(self.probability)
        turned = quarter_turns(images, tf.cast(tf.floor(4.0 * draws[:, 3]), tf.int32))
        images = tf.where(_gate(draws[:, 0], p), turned, images)
        angle = 2.0 * np.pi * (2.0 * draws[:, 4] - 1.0)
        scale = 0.8 + 0.4 * draws[:, 5]
        moved = affine(images, angle, draws[:, 6:8] - 0.5, scale, self.fill)
        images = tf.where(_gate(draws[:, 1], p), moved, images)
        noise = random.normal(seeds, tuple(images.shape[1:]), f"{use}/noise")
        return tf.where(_gate(draws[:, 2], p), images + p * noise, images)

    def update(self, real_scores: tf.Tensor) -> None:
        """Moves p by the scores that the discriminator gave augmented real images, [B, …]; over all replicas."""
        if self.fixed_probability is not None:
            return
        overfitting = tf.reduce_mean(tf.sign(tf.cast(real_scores, tf.float32)))
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            overfitting = context.all_reduce(tf.distribute.ReduceOp.MEAN, overfitting)
        change = tf.where(overfitting > self.target, self.step, -self.step)
        p = tf.convert_to_tensor(self.probability)
        self.probability.assign(tf.clip_by_value(p + change, 0.0, self.maximum))

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {
            "fill": self.fill,
            "target": self.target,
            "step": self.step,
            "maximum": self.maximum,
            "fixed_probability": self.fixed_probability,
        }
        return {**super().get_config(), **own}


def _gate(draws: tf.Tensor, probability: tf.Tensor) -> tf.Tensor:
    """bool [B, 1, 1, 1]: which images are changed; none where the probability is 0."""
    return (draws < probability)[:, tf.newaxis, tf.newaxis, tf.newaxis]
