"""Spatially-adaptive normalisation and its residual block (Park et al., arXiv:1903.07291, eqs. 1-3 and fig. 3-4)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed, xavier_normal
from medsynth_tf.layers.normalization import SpectralConv2D, parameter_free_norm


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class SPADE(tf.keras.layers.Layer):
    """y = norm(x) · (1 + γ(label)) + β(label), with γ and β maps made from the label map by two convolutions.

    γ and β come out of one convolution with 2·C filters: the first C are γ.

    Args:
        hidden_filters: width of the first convolution of the label map (128 in the paper).
        norm: 'batch' or 'instance', both parameter-free.
        seed: of the kernels.
    """

    def __init__(self, hidden_filters: int = 128, norm: str = "batch", seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden_filters, self.norm_kind, self.seed = hidden_filters, norm, seed
        self.norm = parameter_free_norm(norm, name="norm")
        self.shared = tf.keras.layers.Conv2D(
            hidden_filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=xavier_normal(seed, "shared"),
            name="shared",
        )

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Builds for shapes (x [B, H, W, C], label [B, H, W, K])."""
        features, label = (tf.TensorShape(shape) for shape in input_shape)
        self.gamma_beta = tf.keras.layers.Conv2D(
            2 * features[-1],
            3,
            padding="same",
            kernel_initializer=xavier_normal(self.seed, "gamma_beta"),
            dtype=self.dtype_policy,  # parts made after the model's constructor must not see another global policy
            name="gamma_beta",
        )
        self.norm.build(features)
        self.shared.build(label)
        self.gamma_beta.build(label[:-1].concatenate(self.hidden_filters))
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """(x [B, H, W, C], label planes [B, H, W, K] already of x's size) → [B, H, W, C]."""
        x, label = inputs
        gamma, beta = tf.split(self.gamma_beta(self.shared(label)), 2, axis=-1)
        return self.norm(x, training=training) * (1.0 + gamma) + beta

    def compute_output_shape(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> tf.TensorShape:
        """x's."""
        return tf.TensorShape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {"hidden_filters": self.hidden_filters, "norm": self.norm_kind, "seed": self.seed}
        return {**super().get_config(), **own}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class SPADEResidualBlock(tf.keras.layers.Layer):
    """Two times [SPADE, LeakyReLU 0.2, spectral Conv3×3] plus a shortcut, learned (SPADE, spectral Conv1×1 without bias and
    without activation) if and only if the widths differ; the middle width is the smaller of the two.

    Args:
        filters: output width.
        hidden_filters, norm: as for SPADE.
        seed: of the kernels.
    """

    def __init__(self, filters: int, hidden_filters: int = 128, norm: str = "batch", seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.hidden_filters, self.norm_kind, self.seed = filters, hidden_filters, norm, seed

    def _spade(self, name: str) -> SPADE:
        return SPADE(self.hidden_filters, self.norm_kind, layer_seed(self.seed, name), name=name, dtype=self.dtype_policy)

    def _convolution(self, filters: int, size: int, name: str) -> SpectralConv2D:
        return SpectralConv2D(
            filters,
            size,
            padding="same",
            use_bias=size > 1,
            kernel_initializer=xavier_normal(self.seed, name),
            seed=layer_seed(self.seed, name),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Builds for shapes (x [B, H, W, C], label [B, H, W, K])."""
        features, label = (tf.TensorShape(shape) for shape in input_shape)
        middle = min(features[-1], self.filters)
        middle_shape = features[:-1].concatenate(middle)
        self.learned_shortcut = features[-1] != self.filters
        self.spade_0, self.conv_0 = self._spade("spade_0"), self._convolution(middle, 3, "conv_0")
        self.spade_1, self.conv_1 = self._spade("spade_1"), self._convolution(self.filters, 3, "conv_1")
        self.spade_0.build((features, label))
        self.conv_0.build(features)
        self.spade_1.build((middle_shape, label))
        self.conv_1.build(middle_shape)
        if self.learned_shortcut:
            self.spade_s, self.conv_s = self._spade("spade_s"), self._convolution(self.filters, 1, "conv_s")
            self.spade_s.build((features, label))
            self.conv_s.build(features)
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """(x [B, H, W, C], label planes [B, H, W, K]) → [B, H, W, filters]."""
        x, label = inputs
        shortcut = x
        if self.learned_shortcut:
            shortcut = self.conv_s(self.spade_s((x, label), training=training), training=training)
        y = tf.nn.leaky_relu(self.spade_0((x, label), training=training), 0.2)
        y = self.conv_0(y, training=training)
        y = tf.nn.leaky_relu(self.spade_1((y, label), training=training), 0.2)
        return shortcut + self.conv_1(y, training=training)

    def compute_output_shape(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> tf.TensorShape:
        """x's, with `filters` channels."""
        return tf.TensorShape(input_shape[0])[:-1].concatenate(self.filters)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {"filters": self.filters, "hidden_filters": self.hidden_filters, "norm": self.norm_kind, "seed": self.seed}
        return {**super().get_config(), **own}
