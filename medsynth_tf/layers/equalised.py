"""Dense and convolutional layers with equalised learning rates: kernels are kept at unit scale and brought to theirs at each call."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf


def _unit_normal(multiplier: float, seed: int) -> tf.keras.initializers.Initializer:
    """N(0, 1/multiplier), which the multiplier brings back to 1 at each call."""
    return tf.keras.initializers.RandomNormal(0.0, 1.0 / multiplier, seed=seed)


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class EqualisedDense(tf.keras.layers.Dense):
    """x · (c W) + m b with c = m · gain / √fan_in (Karras et al., arXiv:1710.10196, section 4.1).

    W starts as N(0, 1/m), so that c W has the deviation gain / √fan_in, He's for gain √2. Since c is no part of the variable, an
    optimiser whose steps do not depend on the gradient's scale moves all kernels equally fast, in proportion to their deviation.

    Args:
        units: outputs.
        gain: √2 before a ReLU, 1 before nothing.
        learning_rate_multiplier: m, by which kernel and bias learn slower (0.01 in StyleGAN's mapping network, arXiv:1812.04948,
            appendix C).
        seed: of the kernel.
        **kwargs: as for Dense.
    """

    def __init__(
        self, units: int, gain: float = math.sqrt(2.0), learning_rate_multiplier: float = 1.0, seed: int = 0, **kwargs: Any
    ):
        super().__init__(units, **{"kernel_initializer": _unit_normal(learning_rate_multiplier, seed), **kwargs})
        self.gain, self.learning_rate_multiplier, self.seed = gain, learning_rate_multiplier, seed

    def scaled_kernel(self) -> tf.Tensor:
        """c W."""
        return self.kernel * (self.learning_rate_multiplier * self.gain / math.sqrt(self.kernel.shape[0]))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[…, N] → […, units]."""
        y = tf.tensordot(x, self.scaled_kernel(), 1) if x.shape.rank > 2 else tf.matmul(x, self.scaled_kernel())
        if self.use_bias:
            y = tf.nn.bias_add(y, self.bias * self.learning_rate_multiplier)
        return y if self.activation is None else self.activation(y)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {"gain": self.gain, "learning_rate_multiplier": self.learning_rate_multiplier, "seed": self.seed}
        return {**super().get_config(), **own}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class EqualisedConv2D(tf.keras.layers.Conv2D):
    """Convolution with c W + b, c = gain / √fan_in and W from N(0, 1), as `EqualisedDense`.

    Args:
        filters, kernel_size: as for Conv2D.
        gain: √2 before a ReLU, 1 before nothing.
        seed: of the kernel.
        **kwargs: as for Conv2D.
    """

    def __init__(self, filters: int, kernel_size: int, gain: float = math.sqrt(2.0), seed: int = 0, **kwargs: Any):
        super().__init__(filters, kernel_size, **{"kernel_initializer": _unit_normal(1.0, seed), **kwargs})
        self.gain, self.seed = gain, seed

    def scaled_kernel(self) -> tf.Tensor:
        """c W."""
        return self.kernel * (self.gain / math.sqrt(math.prod(self.kernel.shape[:-1])))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """As Conv2D, with the scaled kernel."""
        y = self.convolution_op(x, self.scaled_kernel())
        if self.use_bias:
            y = tf.nn.bias_add(y, self.bias)
        return y if self.activation is None else self.activation(y)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "gain": self.gain, "seed": self.seed}
