"""U-Net for segmentation (Ronneberger et al., arXiv:1505.04597) with padded convolutions and batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.ops.resize import upsample_align_corners


def _uniform(seed: int) -> tf.keras.initializers.Initializer:
    """Uniform with variance 1/(3·fan_in): before batch norm small kernels learn faster, by the same step, than larger ones."""
    return tf.keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)


class DoubleConvolution(tf.keras.layers.Layer):
    """Two times [Conv3×3 without bias, BatchNorm, ReLU].

    Args:
        filters: width of both.
        batch_momentum: of the norms.
        seed: of the kernels.
    """

    def __init__(self, filters: int, batch_momentum: float = 0.9, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [
            tf.keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=_uniform(layer_seed(seed, f"conv_{i}")),
                name=f"conv_{i}",
            )
            for i in range(2)
        ]
        self.norms = [BatchNormalization(batch_momentum, name=f"norm_{i}") for i in range(2)]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H, W, filters]."""
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.nn.relu(norm(convolution(x), training=training))
        return x


class UNet2D(tf.keras.Model):
    """Double convolutions between max-pools, then back up: bilinear ×2 (aligned corners), skip first in the concatenation.

    Args:
        classes: channels of the output.
        widths: of the levels, finest first; the image's sides must be multiples of 2^(levels - 1).
        seed: of the kernels.
        batch_momentum: of the norms.
    """

    def __init__(
        self,
        classes: int,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        seed: int = 0,
        batch_momentum: float = 0.9,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.down = [
            DoubleConvolution(width, batch_momentum, layer_seed(seed, f"down_{i}"), name=f"down_{i}")
            for i, width in enumerate(widths)
        ]
        self.up = [
            DoubleConvolution(width, batch_momentum, layer_seed(seed, f"up_{i}"), name=f"up_{i}")
            for i, width in reversed(list(enumerate(widths[:-1])))
        ]
        self.head = tf.keras.layers.Conv2D(
            classes,
            1,
            kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, "head")),
            dtype=tf.float32,
            name="head",
        )

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → logits [B, H, W, classes] float32."""
        skips: list[tf.Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            if level:
                skips.append(x)
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            x = block(x, training=training)
        for block in self.up:
            x = block(tf.concat([skips.pop(), upsample_align_corners(x)], -1), training=training)
        return self.head(x)
