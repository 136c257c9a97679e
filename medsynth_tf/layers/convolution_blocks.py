"""Convolution, batch norm, ReLU: the unit that segmentation networks are built of, in two or three space axes."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization

Initialiser = Literal["glorot_uniform", "he_normal"]


def kernel_initializer(kind: Initialiser, seed: int) -> tf.keras.initializers.Initializer:
    """A seeded initialiser, an object of its own each time."""
    if kind == "he_normal":
        return tf.keras.initializers.HeNormal(seed)
    return tf.keras.initializers.GlorotUniform(seed)


class ConvNormReLU(tf.keras.layers.Layer):
    """Convolution with bias and zero padding to the same size, batch norm, ReLU.

    Args:
        dimensions: space axes, 2 or 3.
        filters: channels of the output.
        kernel: side of the kernel.
        initialiser: of the kernel.
        batch_momentum: of the norm; Keras's default is 0.99.
        seed: of the kernel.
    """

    EPSILON = 1e-3  # Keras's default, which the papers built on Keras have

    def __init__(
        self,
        dimensions: int,
        filters: int,
        kernel: int = 3,
        initialiser: Initialiser = "glorot_uniform",
        batch_momentum: float = 0.99,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        convolution = {2: tf.keras.layers.Conv2D, 3: tf.keras.layers.Conv3D}[dimensions]
        self.convolution = convolution(
            filters, kernel, padding="same", kernel_initializer=kernel_initializer(initialiser, seed), name="convolution"
        )
        self.norm = BatchNormalization(batch_momentum, self.EPSILON, name="norm")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, …, C] → [B, …, filters]."""
        x = self.convolution(x)
        if x.shape.rank == 4:
            return tf.nn.relu(self.norm(x, training=training))
        # the norm's kernel knows two space axes; its statistics are over all axes but the last, however they are grouped
        shape = tf.shape(x)
        flat = tf.reshape(x, tf.stack([shape[0], shape[1] * shape[2], shape[3], x.shape[-1]]))
        return tf.nn.relu(tf.reshape(self.norm(flat, training=training), shape))


class ConvStack(tf.keras.layers.Layer):
    """`ConvNormReLU`s one after the other, 3 wide.

    Args:
        dimensions: space axes.
        filters: of each.
        seed: of the kernels.
        **options: `initialiser` and `batch_momentum`.
    """

    def __init__(self, dimensions: int, filters: tuple[int, ...], seed: int = 0, name: str | None = None, **options: Any):
        super().__init__(name=name)
        self.blocks = [
            ConvNormReLU(dimensions, width, 3, seed=layer_seed(seed, f"conv_{i}"), name=f"conv_{i}", **options)
            for i, width in enumerate(filters)
        ]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, …, C] → [B, …, last of filters]."""
        for block in self.blocks:
            x = block(x, training=training)
        return x
