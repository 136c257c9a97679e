"""The 2-D U-Net of the multi-planar method: batch norm after each convolution, nearest-neighbour up-sampling."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.convolution_blocks import ConvNormReLU, ConvStack, Initialiser, kernel_initializer
from medsynth_tf.layers.initializers import layer_seed


def upsample_nearest(x: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] → [B, 2H, 2W, C], each pixel repeated.

    By broadcasting, not by a resize layer: XLA on CPU cannot compile that one's gradient.
    """
    batch, height, width = (tf.shape(x)[axis] for axis in range(3))
    channels = x.shape[-1]
    doubled = tf.broadcast_to(x[:, :, tf.newaxis, :, tf.newaxis], [batch, height, 2, width, 2, channels])
    return tf.reshape(doubled, [batch, 2 * height, 2 * width, channels])


class MultiPlanarUNet2D(tf.keras.Model):
    """Two convolutions a level, max-pools, then up: repeat ×2, convolution 2×2 to half the channels, skip first, two convolutions.

    With 64 filters, 4 levels and one channel in and out it has 31,044,289 trainable parameters, as the paper says.

    Args:
        classes: channels of the output.
        filters: of the first level; doubled at each of the next.
        levels: poolings; the image's sides must be multiples of 2^levels.
        seed: of the kernels.
        initialiser: of the kernels.
        batch_momentum: of the norms.
    """

    def __init__(
        self,
        classes: int = 1,
        filters: int = 64,
        levels: int = 4,
        seed: int = 0,
        initialiser: Initialiser = "glorot_uniform",
        batch_momentum: float = 0.99,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        options: dict[str, Any] = {"initialiser": initialiser, "batch_momentum": batch_momentum}
        widths = [filters * 2**level for level in range(levels + 1)]
        self.divisor = 2**levels

        def stack(name: str, width: int) -> ConvStack:
            return ConvStack(2, (width, width), layer_seed(seed, name), name=name, **options)

        self.down = [stack(f"down_{level}", width) for level, width in enumerate(widths)]
        self.halvers = [
            ConvNormReLU(2, widths[level], 2, seed=layer_seed(seed, f"halve_{level}"), name=f"halve_{level}", **options)
            for level in reversed(range(levels))
        ]
        self.up = [stack(f"up_{level}", widths[level]) for level in reversed(range(levels))]
        self.head = tf.keras.layers.Conv2D(
            classes,
            1,
            kernel_initializer=kernel_initializer(initialiser, layer_seed(seed, "head")),
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
        for halve, block in zip(self.halvers, self.up):
            x = halve(upsample_nearest(x), training=training)
            x = block(tf.concat([skips.pop(), x], -1), training=training)
        return self.head(x)
