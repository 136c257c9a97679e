"""The 3-D U-Net (Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger, MICCAI 2016), with zero padding instead of valid convolutions."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.convolution_blocks import ConvStack, Initialiser, kernel_initializer
from medsynth_tf.layers.initializers import layer_seed


class UNet3D(tf.keras.Model):
    """Convolutions f and 2f at each level, max-pools; up by transposed convolutions that keep the channels, skip first.

    With 32 filters, 3 levels and one channel in and out it has 19,073,665 trainable parameters. The paper's net (three in,
    three out) has 19,069,955 without parameters of norms and biases of the transposed convolutions.

    Args:
        classes: channels of the output.
        filters: of the first convolution.
        levels: poolings; the volume's sides must be multiples of 2^levels.
        seed: of the kernels.
        initialiser: of the kernels.
        batch_momentum: of the norms.
    """

    def __init__(
        self,
        classes: int = 1,
        filters: int = 32,
        levels: int = 3,
        seed: int = 0,
        initialiser: Initialiser = "glorot_uniform",
        batch_momentum: float = 0.99,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        options: dict[str, Any] = {"initialiser": initialiser, "batch_momentum": batch_momentum}
        widths = [filters * 2**level for level in range(levels + 1)]
        self.divisor = 2**levels

        def stack(name: str, filters: tuple[int, int]) -> ConvStack:
            return ConvStack(3, filters, layer_seed(seed, name), name=name, **options)

        self.down = [stack(f"down_{level}", (width, 2 * width)) for level, width in enumerate(widths)]
        self.enlargers = [
            tf.keras.layers.Conv3DTranspose(
                4 * width,
                2,
                2,
                kernel_initializer=kernel_initializer(initialiser, layer_seed(seed, f"enlarge_{width}")),
                name=f"enlarge_{level}",
            )
            for level, width in reversed(list(enumerate(widths[:-1])))
        ]
        self.up = [stack(f"up_{level}", (2 * widths[level],) * 2) for level in reversed(range(levels))]
        self.head = tf.keras.layers.Conv3D(
            classes,
            1,
            kernel_initializer=kernel_initializer(initialiser, layer_seed(seed, "head")),
            dtype=tf.float32,
            name="head",
        )

    def call(self, volumes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, D, H, W, C] → logits [B, D, H, W, classes] float32."""
        skips: list[tf.Tensor] = []
        x = volumes
        for level, block in enumerate(self.down):
            if level:
                skips.append(x)
                x = tf.nn.max_pool3d(x, 2, 2, "VALID")
            x = block(x, training=training)
        for enlarge, block in zip(self.enlargers, self.up):
            x = block(tf.concat([skips.pop(), enlarge(x)], -1), training=training)
        return self.head(x)
