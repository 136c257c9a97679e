"""The U-Net that predicts a diffusion step's noise: residual double convolutions, self-attention, the step in every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.ops.resize import upsample_align_corners

TIME_SIZE = 256
HEADS = 4
_QUERIES = 1024  # attention to more pixels than this is computed in parts, whose scores fit into memory
_NORM_EPSILON = 1e-5


def step_encoding(t: tf.Tensor, size: int = TIME_SIZE) -> tf.Tensor:
    """[sin(t f_k), cos(t f_k)] with f_k = 10000^(-2k/size), k = 0 … size/2 - 1: int [B] → float32 [B, size]."""
    frequencies = tf.constant(10000.0 ** (-2.0 * np.arange(size // 2) / size), tf.float32)
    angles = tf.cast(t, tf.float32)[:, tf.newaxis] * frequencies
    return tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)


def _dense(units: int, seed: int, name: str) -> tf.keras.layers.Dense:
    return tf.keras.layers.Dense(
        units, kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, name)), name=name
    )


def _norm(name: str) -> tf.keras.layers.GroupNormalization:
    """Over all channels and pixels of a sample, with scale and offset a channel; in float32 whatever the policy."""
    return tf.keras.layers.GroupNormalization(groups=1, epsilon=_NORM_EPSILON, dtype=tf.float32, name=name)


class DiffusionDoubleConvolution(tf.keras.layers.Layer):
    """Conv3×3, GroupNorm(1), GELU, Conv3×3, GroupNorm(1), without biases.

    Args:
        filters: width of the result.
        middle: width between; `filters` if None.
        residual: return GELU(x + result), for an input of `filters` channels.
        seed: of the kernels.
    """

    def __init__(self, filters: int, middle: int | None = None, residual: bool = False, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.residual = residual
        self.convolutions = [
            tf.keras.layers.Conv2D(
                width,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=tf.keras.initializers.HeUniform(layer_seed(seed, f"conv_{index}")),
                name=f"conv_{index}",
            )
            for index, width in enumerate((middle or filters, filters))
        ]
        self.norms = [_norm(f"norm_{index}") for index in range(2)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → [B, H, W, filters]."""
        y = self.norms[0](self.convolutions[0](x))
        y = self.norms[1](self.convolutions[1](tf.nn.gelu(y)))
        return tf.nn.gelu(tf.cast(x, y.dtype) + y) if self.residual else y


class PixelAttention(tf.keras.layers.Layer):
    """Self-attention of all pixels with a residual, then LayerNorm, Linear, GELU, Linear with a residual.

    Args:
        channels: of the map; a multiple of 4, the number of heads.
        seed: of the kernels.
    """

    def __init__(self, channels: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.channels = channels
        norm = {"epsilon": _NORM_EPSILON, "dtype": tf.float32}
        self.norm = tf.keras.layers.LayerNormalization(**norm, name="norm")
        self.into = _dense(3 * channels, seed, "into")  # queries, keys, values
        self.out = _dense(channels, seed, "out")
        self.feed_norm = tf.keras.layers.LayerNormalization(**norm, name="feed_norm")
        self.feed = [_dense(channels, seed, "feed_0"), _dense(channels, seed, "feed_1")]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, channels] → the same shape."""
        height, width = x.shape[1], x.shape[2]
        tokens = tf.reshape(x, [-1, height * width, self.channels])
        queries, keys, values = tf.split(self.into(self.norm(tokens)), 3, axis=-1)
        parts = [self._attend(part, keys, values) for part in self._parts(queries)]
        mixed = self.out(tf.concat(parts, axis=1))
        tokens = mixed + tf.cast(tokens, mixed.dtype)
        fed = self.feed[1](tf.nn.gelu(self.feed[0](self.feed_norm(tokens))))
        return tf.reshape(fed + tokens, [-1, height, width, self.channels])

    @staticmethod
    def _parts(queries: tf.Tensor) -> list[tf.Tensor]:
        return [queries[:, start : start + _QUERIES] for start in range(0, queries.shape[1], _QUERIES)]

    def _heads(self, tokens: tf.Tensor) -> tf.Tensor:
        """[B, N, C] → [B, heads, N, C / heads]."""
        split = tf.reshape(tokens, [-1, tokens.shape[1], HEADS, self.channels // HEADS])
        return tf.transpose(split, [0, 2, 1, 3])

    def _attend(self, queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        scores = tf.matmul(self._heads(queries), self._heads(keys), transpose_b=True)
        scores = tf.cast(scores, tf.float32) * (self.channels // HEADS) ** -0.5
        weights = tf.cast(tf.nn.softmax(scores), values.dtype)
        mixed = tf.transpose(tf.matmul(weights, self._heads(values)), [0, 2, 1, 3])
        return tf.reshape(mixed, [-1, queries.shape[1], self.channels])


class StepBlock(tf.keras.layers.Layer):
    """Residual double convolution, a double convolution to another width, then Linear(SiLU(encoding)) added to each pixel.

    Args:
        width_in: channels of the input.
        filters: channels of the result. middle: between.
        seed: of the kernels.
    """

    def __init__(self, width_in: int, filters: int, middle: int | None = None, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.same = DiffusionDoubleConvolution(width_in, residual=True, seed=layer_seed(seed, "same"), name="same")
        self.change = DiffusionDoubleConvolution(filters, middle, seed=layer_seed(seed, "change"), name="change")
        self.encoding = _dense(filters, seed, "encoding")

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """(map [B, H, W, width_in], encoding [B, 256]) → [B, H, W, filters]."""
        x, encoding = inputs
        y = self.change(self.same(x))
        return y + tf.cast(self.encoding(tf.nn.silu(encoding))[:, tf.newaxis, tf.newaxis], y.dtype)


def attention_places(levels: int) -> tuple[str, ...]:
    """Names of the blocks that attention can follow: 'down_0' … and 'up_0' …, in the order of the pass."""
    return tuple(f"{way}_{index}" for way in ("down", "up") for index in range(levels))


class DiffusionUNet(tf.keras.Model):
    """Noise of x_t: halvings by max-pool, a bottleneck, as many bilinear doublings with skips.

    Args:
        image_size: side of the images, a multiple of 2 to the number of halvings.
        channels: of the images.
        widths: after the first block and after each halving; (64, 128, 256, 256) in the base. Multiples of 4 where attention is.
        bottleneck: width of the blocks on the smallest map (512).
        attention: blocks that attention follows, of `attention_places`; None for all.
        most_attention_side: attention is left out where maps are larger than this.
        classes: of images, for a class-conditional network; 0 for none.
        seed: of the kernels.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        widths: Sequence[int] = (64, 128, 256, 256),
        bottleneck: int = 512,
        attention: Sequence[str] | None = None,
        most_attention_side: int = 64,
        classes: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        levels = len(widths) - 1
        places = attention_places(levels)

        def double(name: str, filters: int) -> DiffusionDoubleConvolution:
            return DiffusionDoubleConvolution(filters, seed=layer_seed(seed, name), name=name)

        def block(name: str, width_in: int, filters: int, middle: int | None = None) -> StepBlock:
            return StepBlock(width_in, filters, middle, layer_seed(seed, name), name=name)

        self.entry = double("entry", widths[0])
        self.down = [block(f"down_{level}", widths[level], widths[level + 1]) for level in range(levels)]
        self.middle = [double("middle_0", bottleneck), double("middle_1", bottleneck), double("middle_2", widths[-1])]
        self.up: list[StepBlock] = []
        below, outputs, sides = widths[-1], list(widths[1:]), [image_size // 2 ** (level + 1) for level in range(levels)]
        for index in range(levels):
            skip, filters = widths[levels - 1 - index], widths[max(levels - 2 - index, 0)]
            self.up.append(block(f"up_{index}", skip + below, filters, (skip + below) // 2))
            below = filters
            outputs.append(filters)
            sides.append(image_size // 2 ** (levels - 1 - index))
        self.attention = {
            place: PixelAttention(width, layer_seed(seed, f"attention_{place}"), name=f"attention_{place}")
            for place, side, width in zip(places, sides, outputs)
            if (attention is None or place in attention) and side <= most_attention_side
        }
        self.exit = tf.keras.layers.Conv2D(
            channels,
            1,
            kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, "exit")),
            dtype=tf.float32,
            name="exit",
        )
        self.class_encoding: tf.keras.layers.Embedding | None = None
        if classes:
            self.class_encoding = tf.keras.layers.Embedding(
                classes,
                TIME_SIZE,
                embeddings_initializer=tf.keras.initializers.RandomNormal(0.0, 1.0, seed=layer_seed(seed, "classes")),
                name="class_encoding",
            )

    def encode(self, t: tf.Tensor, label: tf.Tensor | None) -> tf.Tensor:
        """Encoding of steps int [B] and classes int [B], of which -1 is none; float32 [B, 256]."""
        encoding = step_encoding(t)
        if self.class_encoding is not None and label is not None:
            known = tf.cast(label >= 0, tf.float32)[:, tf.newaxis]
            encoding += known * tf.cast(self.class_encoding(tf.maximum(label, 0)), tf.float32)
        return encoding

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """{"x": [B, S, S, C], "t": int [B], perhaps "label": int [B], -1 for no class} → noise float32 [B, S, S, C]."""
        encoding = self.encode(inputs["t"], inputs.get("label"))
        x = self.entry(inputs["x"])
        skips = []
        for index, block in enumerate(self.down):
            skips.append(x)
            x = self._attended(f"down_{index}", block((tf.nn.max_pool2d(x, 2, 2, "VALID"), encoding)))
        for double in self.middle:
            x = double(x)
        for index, block in enumerate(self.up):
            x = tf.concat([skips.pop(), upsample_align_corners(x)], axis=-1)
            x = self._attended(f"up_{index}", block((x, encoding)))
        return self.exit(x)

    def _attended(self, place: str, x: tf.Tensor) -> tf.Tensor:
        return self.attention[place](x) if place in self.attention else x
