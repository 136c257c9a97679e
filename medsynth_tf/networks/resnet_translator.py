"""CycleGAN's networks (Zhu et al., arXiv:1703.10593, appendix): a residual translator of images and a scorer of patches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import InstanceNormalization


def _reflect(x: tf.Tensor, pixels: int) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]], "REFLECT")


def _normal(seed: int, name: str) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomNormal(0.0, 0.02, layer_seed(seed, name))


class ResidualBlock(tf.keras.layers.Layer):
    """x + [reflect, Conv3×3, InstanceNorm, ReLU, reflect, Conv3×3, InstanceNorm](x).

    Args:
        filters: width of input and output.
        seed: of the kernels.
    """

    def __init__(self, filters: int, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [
            tf.keras.layers.Conv2D(filters, 3, kernel_initializer=_normal(seed, f"conv_{i}"), name=f"conv_{i}")
            for i in range(2)
        ]
        self.norms = [InstanceNormalization(name=f"norm_{i}") for i in range(2)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, filters] → the same shape."""
        y = tf.nn.relu(self.norms[0](self.convolutions[0](_reflect(x, 1))))
        return x + self.norms[1](self.convolutions[1](_reflect(y, 1)))


class ResNetTranslator(tf.keras.Model):
    """Image to image: 7×7 convolution, two of stride 2, residual blocks, two transposed ones, 7×7, tanh; instance norm, ReLU.

    Args:
        channels: of the output.
        filters: width after the first convolution (64).
        blocks: residual blocks (9).
        seed: of the kernels, N(0, 0.02).
    """

    def __init__(self, channels: int = 3, filters: int = 64, blocks: int = 9, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        convolution, transposed = tf.keras.layers.Conv2D, tf.keras.layers.Conv2DTranspose
        self.entry = convolution(filters, 7, kernel_initializer=_normal(seed, "entry"), name="entry")
        self.downs = [
            convolution(filters * 2**i, 3, 2, kernel_initializer=_normal(seed, f"down_{i}"), name=f"down_{i}") for i in (1, 2)
        ]
        self.blocks = [ResidualBlock(filters * 4, layer_seed(seed, f"block_{i}"), name=f"block_{i}") for i in range(blocks)]
        self.ups = [
            transposed(filters * 2**i, 3, 2, "same", kernel_initializer=_normal(seed, f"up_{i}"), name=f"up_{i}")
            for i in (1, 0)
        ]
        self.norms = [InstanceNormalization(name=f"norm_{i}") for i in range(5)]
        self.to_image = convolution(
            channels, 7, kernel_initializer=_normal(seed, "to_image"), dtype=tf.float32, name="to_image"
        )

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] with sides that are multiples of 4 → [B, H, W, channels] float32 in [-1, 1]; training changes nothing."""
        x = tf.nn.relu(self.norms[0](self.entry(_reflect(x, 3))))
        for down, norm in zip(self.downs, self.norms[1:3]):
            x = tf.nn.relu(norm(down(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]))))
        for block in self.blocks:
            x = block(x)
        for up, norm in zip(self.ups, self.norms[3:]):
            x = tf.nn.relu(norm(up(x)))
        return tf.tanh(self.to_image(tf.cast(_reflect(x, 3), tf.float32)))


class PatchScorer(tf.keras.Model):
    """4×4 convolutions padded by 1 with widths F, 2F, 4F at stride 2, 8F and 1 at stride 1; instance norm but on the first and last,
    LeakyReLU 0.2: the 70×70 PatchGAN.

    Args:
        filters: F (64).
        averaged: the mean of the score map is the image's score.
        sigmoid: scores end in a sigmoid.
        reflect: pad by reflection instead of zeros.
        seed: of the kernels, N(0, 0.02).
    """

    def __init__(
        self,
        filters: int = 64,
        averaged: bool = False,
        sigmoid: bool = False,
        reflect: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.averaged, self.sigmoid, self.padding = averaged, sigmoid, "REFLECT" if reflect else "CONSTANT"
        plan = [(filters, 2), (2 * filters, 2), (4 * filters, 2), (8 * filters, 1), (1, 1)]
        self.convolutions = [
            tf.keras.layers.Conv2D(width, 4, stride, kernel_initializer=_normal(seed, f"conv_{i}"), name=f"conv_{i}")
            for i, (width, stride) in enumerate(plan)
        ]
        self.norms = [InstanceNormalization(name=f"norm_{i}") for i in range(1, 4)]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] of 24 pixels a side or more → score maps float32 [B, h, w, 1], or scores [B]; training changes nothing."""
        for index, convolution in enumerate(self.convolutions):
            x = convolution(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], self.padding))
            if index == len(self.convolutions) - 1:
                break
            if index:
                x = self.norms[index - 1](x)
            x = tf.nn.leaky_relu(x, 0.2)
        x = tf.cast(x, tf.float32)
        x = tf.sigmoid(x) if self.sigmoid else x
        return tf.reduce_mean(x, [1, 2, 3]) if self.averaged else x
