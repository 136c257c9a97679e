"""A U-Net of residual blocks whose skips are added: the segmentation network of FBPAug's released code (arXiv:2107.08543)."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization, GroupNormalization

Norm = Literal["batch", "group"]


class ResidualBlock(tf.keras.layers.Layer):
    """Two times [norm, ReLU, Conv3×3 without bias], plus the input, through a 1×1 convolution where the width changes.

    Args:
        inputs: channels in.
        filters: channels out.
        norm: 'batch', or 'group' of `groups` groups.
        groups: see there.
        seed: of the kernels.
    """

    def __init__(self, inputs: int, filters: int, norm: Norm = "batch", groups: int = 4, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.norms = [make_norm(norm, groups, f"norm_{i}") for i in range(2)]
        self.convolutions = [convolution(filters, 3, layer_seed(seed, f"conv_{i}"), f"conv_{i}") for i in range(2)]
        self.shortcut = convolution(filters, 1, layer_seed(seed, "shortcut"), "shortcut") if inputs != filters else None

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, inputs] → [B, H, W, filters]."""
        y = x
        for norm, convolve in zip(self.norms, self.convolutions):
            y = convolve(tf.nn.relu(norm(y, training=training)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class ResidualUNet(tf.keras.Model):
    """Pre-activation residual U-Net for slices of any size.

    Encoder level k has two blocks, f·2^(k-1) → f·2^(k-1) → f·2^k (the first f → f → 2f), then 2×2 max-pooling that keeps odd borders.
    Decoder levels resize bilinearly to the skip's exact size, add the skip, and have two blocks that halve the width. With 8 filters
    and 5 levels 8,220,577 weights, norms' scales and shifts among them.

    Args:
        filters: f.
        levels: poolings.
        norm: 'batch' or 'group'.
        groups: of 'group'; must divide f.
        seed: of the kernels.
    """

    def __init__(self, filters: int = 8, levels: int = 5, norm: Norm = "batch", groups: int = 4, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)

        def pair(name: str, first: int, middle: int, last: int) -> list[ResidualBlock]:
            return [
                ResidualBlock(a, b, norm, groups, layer_seed(seed, f"{name}_{i}"), name=f"{name}_{i}")
                for i, (a, b) in enumerate(((first, middle), (middle, last)))
            ]

        widths = [filters * 2**level for level in range(levels + 1)]
        deepest = widths[-1]
        self.stem = convolution(filters, 3, layer_seed(seed, "stem"), "stem")
        self.down = [pair(f"down_{k}", widths[k], widths[k], widths[k + 1]) for k in range(levels)]
        self.bridge = pair("bridge", deepest, 2 * deepest, deepest)
        self.up = [pair(f"up_{k}", widths[k + 1], widths[k], widths[k]) for k in reversed(range(levels))]
        self.last = ResidualBlock(filters, filters, norm, groups, layer_seed(seed, "last"), name="last")
        self.head_norm = make_norm(norm, groups, "head_norm")
        self.head = tf.keras.layers.Conv2D(
            1,
            1,
            kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, "head")),
            dtype=tf.float32,
            name="head",
        )

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, 1] → logits [B, H, W, 1] float32."""
        x = self.stem(images)
        skips: list[tf.Tensor] = []
        for blocks in self.down:
            for block in blocks:
                x = block(x, training=training)
            skips.append(x)
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        for block in self.bridge:
            x = block(x, training=training)
        for blocks in self.up:
            skip = skips.pop()
            x = tf.cast(tf.image.resize(x, tf.shape(skip)[1:3]), skip.dtype) + skip
            for block in blocks:
                x = block(x, training=training)
        x = self.last(x, training=training)
        return self.head(tf.nn.relu(self.head_norm(x, training=training)))


def convolution(filters: int, side: int, seed: int, name: str) -> tf.keras.layers.Conv2D:
    """Convolution at stride 1 without bias, padded with zeros, Glorot-uniform."""
    start = tf.keras.initializers.GlorotUniform(seed)
    return tf.keras.layers.Conv2D(filters, side, padding="same", use_bias=False, kernel_initializer=start, name=name)


def make_norm(kind: Norm, groups: int, name: str) -> tf.keras.layers.Layer:
    """Batch norm, or group norm of so many groups, with scale and shift."""
    return GroupNormalization(groups, name=name) if kind == "group" else BatchNormalization(name=name)
