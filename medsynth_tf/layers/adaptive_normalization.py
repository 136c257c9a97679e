"""A style vector scales and shifts every channel: on its own, and with instance normalisation before it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.equalised import EqualisedDense
from medsynth_tf.layers.initializers import layer_seed


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class AdaptiveInstanceNormalization(tf.keras.layers.Layer):
    """γ (x - μ(x)) / σ(x) + β, with (γ, β) an affine function of a style vector (Huang and Belongie, arXiv:1703.06868, eq. 8;
    as in StyleGAN, arXiv:1812.04948, eq. 1).

    Statistics are those of each sample and channel over space, in float32. The affine function has 2C outputs, the first C of which
    are γ - 1: with its initial weights, small and without offset, γ is near 1 and β near 0.

    Args:
        epsilon: added to the variance; small, so that the output has deviation γ whatever the scale of the input.
        seed: of the affine function's kernel.
    """

    def __init__(self, epsilon: float = 1e-8, seed: int = 0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # the style stays float32
        self.epsilon, self.seed = epsilon, seed

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Builds for shapes (x [B, H, W, C], style [B, N])."""
        features, style = (tf.TensorShape(shape) for shape in input_shape)
        self.affine = tf.keras.layers.Dense(
            2 * features[-1],
            kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.02, seed=layer_seed(self.seed, "affine")),
            dtype=tf.float32,  # a scale in half precision would be off by a thousandth
            name="affine",
        )
        self.affine.build(style)
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """(x [B, H, W, C], style [B, N]) → [B, H, W, C] in x's dtype."""
        x, style = inputs
        gamma, beta = tf.split(self.affine(style)[:, tf.newaxis, tf.newaxis], 2, axis=-1)
        x32 = tf.cast(x, tf.float32)
        # Not by tf.nn.moments: TensorFlow's graph optimiser takes its form for an instance norm with constant γ, and crashes on a γ
        # that is none.
        centred = x32 - tf.reduce_mean(x32, axis=[1, 2], keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=[1, 2], keepdims=True)
        return tf.cast(centred * tf.math.rsqrt(variance + self.epsilon) * (1.0 + gamma) + beta, x.dtype)

    def compute_output_shape(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> tf.TensorShape:
        """x's."""
        return tf.TensorShape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "seed": self.seed}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class StyleModulation(tf.keras.layers.Layer):
    """y_s x + y_b, with (y_s, y_b) an affine function of a style vector at an equalised learning rate (Karras et al., StyleGAN,
    arXiv:1812.04948, eq. 1, whose normalisation is a layer before this one).

    The affine function has 2C outputs, the first C of which are y_s - 1: its offset is 0 at first, that of y_s so is 1 (appendix C).

    Args:
        seed: of the affine function's kernel.
    """

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # the style stays float32
        self.seed = seed

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Builds for shapes (x [B, H, W, C], style [B, N])."""
        features, style = (tf.TensorShape(shape) for shape in input_shape)
        self.affine = EqualisedDense(
            2 * features[-1],
            gain=1.0,
            seed=layer_seed(self.seed, "affine"),
            dtype=tf.float32,  # a scale in half precision would be off by a thousandth
            name="affine",
        )
        self.affine.build(style)
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """(x [B, H, W, C], style float32 [B, N]) → [B, H, W, C] in x's dtype."""
        x, style = inputs
        scale, shift = tf.split(self.affine(style)[:, tf.newaxis, tf.newaxis], 2, axis=-1)
        return tf.cast(tf.cast(x, tf.float32) * (1.0 + scale) + shift, x.dtype)

    def compute_output_shape(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> tf.TensorShape:
        """x's."""
        return tf.TensorShape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "seed": self.seed}
