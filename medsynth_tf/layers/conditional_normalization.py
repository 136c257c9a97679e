"""Conditional batch normalisation: each class has a scale and an offset of its own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchStatisticsNormalization


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class ConditionalBatchNormalization(tf.keras.layers.Layer):
    """γ[class] · (x - μ) / σ + β[class], μ and σ over the whole batch whatever its classes (Dumoulin et al., arXiv:1610.07629,
    section 2.2, with batch statistics; de Vries et al., arXiv:1707.00683).

    Args:
        classes: how many.
        gamma_deviation: of the first scales, drawn from N(1, gamma_deviation); DCGAN takes 0.02.
        seed: of the scales.
    """

    def __init__(self, classes: int, gamma_deviation: float = 0.02, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.classes, self.gamma_deviation, self.seed = classes, gamma_deviation, seed
        self.norm = BatchStatisticsNormalization(name="norm")

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Makes γ and β, float32 [classes, C], for shapes (x [B, H, W, C], class [B])."""
        features = tf.TensorShape(input_shape[0])
        common: dict[str, Any] = {
            "shape": [self.classes, features[-1]],
            "dtype": tf.float32,
            "experimental_autocast": False,
        }
        first = tf.keras.initializers.RandomNormal(1.0, self.gamma_deviation, seed=layer_seed(self.seed, "gamma"))
        self.gamma = self.add_weight(name="gamma", initializer=first, **common)
        self.beta = self.add_weight(name="beta", initializer="zeros", **common)
        self.norm.build(features)
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """(x [B, H, W, C], class int [B], each 0 … classes - 1) → [B, H, W, C] in x's dtype."""
        x, label = inputs
        gamma, beta = (tf.gather(table, label)[:, tf.newaxis, tf.newaxis] for table in (self.gamma, self.beta))
        normalised = tf.cast(self.norm(x, training=training), tf.float32)
        return tf.cast(normalised * gamma + beta, x.dtype)

    def compute_output_shape(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> tf.TensorShape:
        """x's."""
        return tf.TensorShape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {"classes": self.classes, "gamma_deviation": self.gamma_deviation, "seed": self.seed}
        return {**super().get_config(), **own}
