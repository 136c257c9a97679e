"""U-Nets from images to heatmaps: a plain one, and one with a ResNeXt-50 32×4d encoder (Xie et al., arXiv:1611.05431)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.ops.resize import upsample_nearest

STAGES, GROUPS, GROUP_WIDTH = (3, 4, 6, 3), 32, 4
DECODER_WIDTHS = (256, 128, 64, 32, 16)
Activation = Literal["elu", "relu"]


def _he(seed: int, name: str) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.HeNormal(layer_seed(seed, name))


class ConvolutionNorm(tf.keras.layers.Layer):
    """Conv (without bias), BatchNorm and, unless `activation` is None, the activation.

    Args:
        filters: width.
        kernel: side.
        stride: 1 or 2; padding is symmetric, (kernel - 1) / 2 on each side.
        groups: of channels, convolved apart.
        activation: after the norm.
        seed: of the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = "relu",
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.padding = kernel // 2
        self.convolution = tf.keras.layers.Conv2D(
            filters,
            kernel,
            stride,
            "valid",
            groups=groups,
            use_bias=False,
            kernel_initializer=_he(seed, "convolution"),
            name="convolution",
        )
        self.norm = BatchNormalization(name="norm")
        self.activation = activation

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, ⌈H / stride⌉, ⌈W / stride⌉, filters]."""
        p = self.padding
        x = tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]]) if p else x
        x = self.norm(self.convolution(x), training=training)
        return x if self.activation is None else getattr(tf.nn, self.activation)(x)


class ResNeXtBottleneck(tf.keras.layers.Layer):
    """1×1, grouped 3×3 (which carries the stride) and 1×1 convolution with norms, added to the input or its projection.

    Args:
        inner: width of the grouped convolution.
        outer: width of the result.
        stride: 1 or 2.
        project: put a 1×1 convolution with norm on the shortcut.
        seed: of the kernels.
    """

    def __init__(self, inner: int, outer: int, stride: int, project: bool, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.layers = [
            ConvolutionNorm(inner, 1, seed=layer_seed(seed, "reduce"), name="reduce"),
            ConvolutionNorm(inner, 3, stride, GROUPS, seed=layer_seed(seed, "grouped"), name="grouped"),
            ConvolutionNorm(outer, 1, activation=None, seed=layer_seed(seed, "expand"), name="expand"),
        ]
        self.shortcut = (
            ConvolutionNorm(outer, 1, stride, activation=None, seed=layer_seed(seed, "shortcut"), name="shortcut")
            if project
            else None
        )

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H / stride, W / stride, outer]."""
        y = x
        for layer in self.layers:
            y = layer(y, training=training)
        return tf.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, training=training)))


class ResNeXtUNet(tf.keras.Model):
    """Encoder ResNeXt-50 32×4d, decoder of five times [nearest ×2, skip, two Conv3×3-BN-ReLU]; logits of one map.

    Skips come from strides 2, 4, 8 and 16 (64, 256, 512, 1024 channels); the last decoder block has none.

    Args:
        head_kernel: side of the last convolution: 1 in the paper, 3 in the authors' library.
        seed: of all weights.
    """

    divisor = 32

    def __init__(self, head_kernel: int = 1, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.stem = ConvolutionNorm(64, 7, 2, seed=layer_seed(seed, "stem"), name="stem")
        self.stages: list[list[ResNeXtBottleneck]] = []
        for stage, count in enumerate(STAGES):
            inner, outer = GROUPS * GROUP_WIDTH * 2**stage, 256 * 2**stage
            self.stages.append(
                [
                    ResNeXtBottleneck(
                        inner,
                        outer,
                        2 if stage and not block else 1,
                        not block,
                        layer_seed(seed, f"stage_{stage}_{block}"),
                        name=f"stage_{stage}_{block}",
                    )
                    for block in range(count)
                ]
            )
        self.decoder = [
            [
                ConvolutionNorm(width, seed=layer_seed(seed, f"decoder_{level}_{i}"), name=f"decoder_{level}_{i}")
                for i in range(2)
            ]
            for level, width in enumerate(DECODER_WIDTHS)
        ]
        self.head = tf.keras.layers.Conv2D(
            1, head_kernel, padding="same", kernel_initializer=_he(seed, "head"), dtype=tf.float32, name="head"
        )

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [B, H, W, 3] in [0, 1], sides multiples of 32 → logits [B, H, W, 1] float32."""
        x = self.stem(images, training=training)
        skips = [x]
        x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")  # after ReLU zeros are the least
        for stage in self.stages:
            for block in stage:
                x = block(x, training=training)
            skips.append(x)
        skips.pop()
        for level, layers in enumerate(self.decoder):
            x = upsample_nearest(x)
            if level < len(skips):
                x = tf.concat([x, skips[-1 - level]], -1)
            for layer in layers:
                x = layer(x, training=training)
        return self.head(x)


class PlainHeatmapUNet(tf.keras.Model):
    """Double [Conv3×3, BatchNorm, ELU] between max-pools, back up by transposed 2×2 convolutions of stride 2; logits of one map.

    The baseline's body (Stern et al., arXiv:2106.12376).

    Args:
        widths: of the levels, the bottleneck last (16 … 256, 512).
        head_kernel: side of the last convolution.
        seed: of all weights.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 256, 512), head_kernel: int = 1, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.divisor = 2 ** (len(widths) - 1)

        def double(name: str, width: int) -> list[ConvolutionNorm]:
            return [
                ConvolutionNorm(width, activation="elu", seed=layer_seed(seed, f"{name}_{i}"), name=f"{name}_{i}")
                for i in range(2)
            ]

        self.down = [double(f"down_{level}", width) for level, width in enumerate(widths)]
        self.ups = [
            tf.keras.layers.Conv2DTranspose(width, 2, 2, kernel_initializer=_he(seed, f"up_{level}"), name=f"up_{level}")
            for level, width in enumerate(widths[:-1])
        ]
        self.up = [double(f"join_{level}", width) for level, width in enumerate(widths[:-1])]
        self.head = tf.keras.layers.Conv2D(
            1, head_kernel, padding="same", kernel_initializer=_he(seed, "head"), dtype=tf.float32, name="head"
        )

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [B, H, W, 3] in [0, 1], sides multiples of 2^(levels - 1) → logits [B, H, W, 1] float32."""
        skips: list[tf.Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = tf.nn.max_pool2d(x, 2, 2, "VALID") if level else x
            for layer in block:
                x = layer(x, training=training)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = tf.concat([skips[level], self.ups[level](x)], -1)
            for layer in self.up[level]:
                x = layer(x, training=training)
        return self.head(x)
