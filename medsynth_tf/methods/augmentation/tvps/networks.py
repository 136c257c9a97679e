"""The generator's encoder and decoder and the patch discriminator, by the authors' architecture files."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.mixture_latent import MixtureHeads
from medsynth_tf.layers.normalization import BatchNormalization

GROUPS = 8  # of GroupNorm, or the largest power of two that divides the width


def make_norm(kind: str, width: int, name: str) -> tf.keras.layers.Layer:
    """'batch' or 'group' normalisation with scale and offset."""
    if kind == "batch":
        return BatchNormalization(name=name)
    groups = GROUPS
    while width % groups:
        groups //= 2
    return tf.keras.layers.GroupNormalization(groups, epsilon=1e-5, dtype=tf.float32, name=name)


class LevelBlock(tf.keras.layers.Layer):
    """`depth` times [Conv k×k same, norm, ReLU].

    Args:
        filters: width.
        depth: convolutions.
        kernel: k.
        norm: 'batch' or 'group'.
        seed: of the kernels.
    """

    def __init__(self, filters: int, depth: int, kernel: int, norm: str, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [
            tf.keras.layers.Conv2D(
                filters,
                kernel,
                padding="same",
                use_bias=False,  # the norm takes it out again
                kernel_initializer=tf.keras.initializers.HeNormal(layer_seed(seed, f"conv_{i}")),
                name=f"conv_{i}",
            )
            for i in range(depth)
        ]
        self.norms = [make_norm(norm, filters, f"norm_{i}") for i in range(depth)]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H, W, filters]."""
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.nn.relu(tf.cast(norm(convolution(x), training=training), x.dtype))
        return x


class PartialEncoder(tf.keras.Model):
    """F_φ: level 0 at full resolution, then `levels` times [max-pool 2, block of twice the width], Dense, mixture heads.

    Args:
        size: S, a multiple of 2^levels.
        levels: halvings (5).
        filters: width of level 0 (16).
        depth, kernel, norm: of the blocks (1, 3, 'batch').
        hidden: units of the dense layer between the last map and the heads (256).
        components, latent: K and D of the mixture.
        log_variance_range: of the heads.
        seed: of the kernels.
    """

    def __init__(
        self,
        size: int,
        levels: int = 5,
        filters: int = 16,
        depth: int = 1,
        kernel: int = 3,
        norm: str = "batch",
        hidden: int = 256,
        components: int = 5,
        latent: int = 64,
        log_variance_range: tuple[float, float] = (-10.0, 10.0),
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.bottleneck = [size // 2**levels, size // 2**levels, filters * 2**levels]
        self.blocks = [
            LevelBlock(filters * 2**i, depth, kernel, norm, layer_seed(seed, f"level_{i}"), name=f"level_{i}")
            for i in range(levels + 1)
        ]
        self.hidden = tf.keras.layers.Dense(
            hidden, kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, "hidden")), name="hidden"
        )
        self.heads = MixtureHeads(components, latent, log_variance_range, layer_seed(seed, "heads"), name="heads")

    def call(self, x: tf.Tensor, training: bool = False) -> tuple[list[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """[B, S, S, C+1] → the maps of all levels, finest first and the bottleneck last; and log s, μ, log σ² of the mixture."""
        maps: list[tf.Tensor] = []
        for block in self.blocks:
            if maps:
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            x = block(x, training=training)
            maps.append(x)
        flat = tf.reshape(x, [-1, self.bottleneck[0] * self.bottleneck[1] * self.bottleneck[2]])
        return maps, self.heads(self.hidden(flat))


class PartialDecoder(tf.keras.Model):
    """G_θ: Dense to the bottleneck's size, `levels` times [transposed conv 2×2/2, concat of the shortcut, block], Conv 1×1, linear.

    Args:
        size, levels, filters, depth, kernel, norm, seed: as for the encoder.
        channels: of the output.
        shortcuts: whether the encoder's maps of all levels but the last come in; else the latent vector is all there is.
    """

    def __init__(
        self,
        size: int,
        levels: int = 5,
        filters: int = 16,
        depth: int = 1,
        kernel: int = 3,
        norm: str = "batch",
        channels: int = 1,
        shortcuts: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.shortcuts = shortcuts
        side, width = size // 2**levels, filters * 2**levels
        self.bottleneck = [side, side, width]

        def glorot(name: str) -> tf.keras.initializers.Initializer:
            return tf.keras.initializers.GlorotUniform(layer_seed(seed, name))

        self.entry = tf.keras.layers.Dense(side * side * width, kernel_initializer=glorot("entry"), name="entry")
        self.ups, self.blocks = [], []
        for level in reversed(range(levels)):
            width = filters * 2**level
            self.ups.append(
                tf.keras.layers.Conv2DTranspose(width, 2, 2, kernel_initializer=glorot(f"up_{level}"), name=f"up_{level}")
            )
            self.blocks.append(
                LevelBlock(width, depth, kernel, norm, layer_seed(seed, f"level_{level}"), name=f"level_{level}")
            )
        self.to_map = tf.keras.layers.Conv2D(channels, 1, kernel_initializer=glorot("to_map"), dtype=tf.float32, name="to_map")

    def call(self, inputs: tuple[tf.Tensor, list[tf.Tensor]], training: bool = False) -> tf.Tensor:
        """(z [B, D], the encoder's maps finest first) → [B, S, S, channels] float32."""
        latent, maps = inputs
        x = tf.reshape(self.entry(latent), [-1, *self.bottleneck])
        for index, (up, block) in enumerate(zip(self.ups, self.blocks)):
            x = up(x)
            if self.shortcuts:
                x = tf.concat([maps[len(self.ups) - 1 - index], x], -1)
            x = block(x, training=training)
        return self.to_map(x)


class PatchScorer(tf.keras.Model):
    """D_ψ, after DCGAN: 4×4 convolutions at stride 2 with widths F, 2F, 4F, 8F, LeakyReLU 0.2, batch norm but on the first; a last
    4×4 one without padding. A patch of 4·2^layers pixels has one score; larger images have a map of scores.

    Args:
        layers: strided convolutions (4, for 64×64).
        filters: F (64).
        seed: of the kernels, N(0, 0.02).
    """

    def __init__(self, layers: int = 4, filters: int = 64, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions, self.norms = [], []
        for index in range(layers + 1):
            last = index == layers
            self.convolutions.append(
                tf.keras.layers.Conv2D(
                    1 if last else filters * min(2**index, 8),
                    4,
                    1 if last else 2,
                    "valid",
                    use_bias=False,
                    kernel_initializer=tf.keras.initializers.RandomNormal(0.0, 0.02, layer_seed(seed, f"conv_{index}")),
                    dtype=tf.float32 if last else None,
                    name=f"conv_{index}",
                )
            )
            if 0 < index < layers:
                gamma = tf.keras.initializers.RandomNormal(1.0, 0.02, layer_seed(seed, f"norm_{index}"))
                self.norms.append(BatchNormalization(gamma_initializer=gamma, name=f"norm_{index}"))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → logits of all places, float32 [B·h·w]; their sigmoid is the probability of being real."""
        for index, convolution in enumerate(self.convolutions[:-1]):
            x = convolution(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]))
            if index:
                x = self.norms[index - 1](x, training=training)
            x = tf.nn.leaky_relu(x, 0.2)
        return tf.reshape(self.convolutions[-1](x), [-1])
