"""Two encoders and a decoder: a U-Net cut in two, and a second encoder whose features at each scale are distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.ops import random
from medsynth_tf.ops.instance_statistics import adaptive_instance_normalization

_EPSILON = 1e-3  # Keras's default for batch norms, which the original has


class Gaussian(NamedTuple):
    """μ in [-1, 1] and σ in (0, 1), each float32 [B, h, w, C]."""

    mean: tf.Tensor
    deviation: tf.Tensor

    def sample(self, seeds: tf.Tensor, scale: float, name: str) -> tf.Tensor:
        """μ + τσε, with noise of its own for each sample, pixel and channel; μ itself where `scale`, τ, is 0."""
        if not scale:
            return self.mean
        height, width = tf.shape(self.mean)[1], tf.shape(self.mean)[2]
        noise = random.normal_maps(seeds, height, width, self.mean.shape[-1], name)
        return self.mean + scale * self.deviation * noise


def _convolution(filters: int, kernel: int, seed: int, name: str, **kwargs: Any) -> tf.keras.layers.Conv2D:
    initializer = tf.keras.initializers.GlorotUniform(layer_seed(seed, name))
    return tf.keras.layers.Conv2D(filters, kernel, padding="same", kernel_initializer=initializer, name=name, **kwargs)


class ConvBlock(tf.keras.layers.Layer):
    """Two times [convolution 3×3, batch norm, swish].

    Args:
        filters: width of both.
        momentum: of the norms.
        seed: of the kernels.
    """

    def __init__(self, filters: int, momentum: float, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [_convolution(filters, 3, seed, f"conv_{i}") for i in range(2)]
        self.norms = [BatchNormalization(momentum, _EPSILON, name=f"norm_{i}") for i in range(2)]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H, W, filters]."""
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.nn.silu(norm(convolution(x), training=training))
        return x


class Encoder(tf.keras.Model):
    """A `ConvBlock` a scale, with 2×2 max pooling between them.

    Args:
        filters: of the scales, finest first.
        momentum: of batch norms.
        seed: of the kernels.
    """

    def __init__(self, filters: Sequence[int], momentum: float, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.blocks = [
            ConvBlock(width, momentum, layer_seed(seed, f"block_{i}"), name=f"block_{i}") for i, width in enumerate(filters)
        ]

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Images [B, H, W, 1] in [0, 1] → f(1) … f(n), the i-th [B, H/2^(i-1), W/2^(i-1), C_i]."""
        x, features = images, []
        for scale, block in enumerate(self.blocks):
            if scale:
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            x = block(x, training=training)
            features.append(x)
        return features


class _Head(tf.keras.layers.Layer):
    """Features → their distribution: two 3×3 convolutions or none, then 1×1 to twice as many channels; tanh of the first half is μ,
    sigmoid of the second σ."""

    def __init__(self, filters: int, kind: Literal["conv1x1", "convblock"], momentum: float, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.block = ConvBlock(filters, momentum, layer_seed(seed, "block"), name="block") if kind == "convblock" else None
        self.distribution = _convolution(2 * filters, 1, seed, "distribution", dtype=tf.float32)

    def call(self, x: tf.Tensor, training: bool = False) -> Gaussian:
        if self.block is not None:
            x = self.block(x, training=training)
        mean, deviation = tf.split(self.distribution(tf.cast(x, tf.float32)), 2, axis=-1)
        return Gaussian(tf.tanh(mean), tf.sigmoid(deviation))


class StyleEncoder(tf.keras.Model):
    """An encoder whose features are distributions of z_i; a `ConvBlock` a scale turns z_i into f_s(i).

    Call it on (images, seeds) for the features f_s alone.

    Args:
        filters, momentum, seed: as of `Encoder`.
        head: what gives the distributions.
        noise_scale: τ.
    """

    def __init__(
        self,
        filters: Sequence[int],
        head: Literal["conv1x1", "convblock"],
        noise_scale: float,
        momentum: float,
        seed: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.noise_scale = noise_scale
        self.trunk = Encoder(filters, momentum, layer_seed(seed, "trunk"), name="trunk")
        self.heads = [
            _Head(width, head, momentum, layer_seed(seed, f"head_{i}"), name=f"head_{i}") for i, width in enumerate(filters)
        ]
        self.posts = [
            ConvBlock(width, momentum, layer_seed(seed, f"post_{i}"), name=f"post_{i}") for i, width in enumerate(filters)
        ]

    def distributions(self, images: tf.Tensor, training: bool = False) -> list[Gaussian]:
        """Images [B, H, W, 1] in [0, 1] → of each scale μ and σ, of the shapes of `Encoder`'s features."""
        return [head(x, training=training) for head, x in zip(self.heads, self.trunk(images, training=training))]

    def sample(self, distributions: Sequence[Gaussian], seeds: tf.Tensor) -> list[tf.Tensor]:
        """z_i, each float32 [B, h, w, C_i]; sample b's noise depends on seeds[b] alone, int64 [B]."""
        return [each.sample(seeds, self.noise_scale, f"style {scale}") for scale, each in enumerate(distributions)]

    def features(self, latents: Sequence[tf.Tensor], training: bool = False) -> list[tf.Tensor]:
        """z_i → f_s(i) of the same shapes, whatever those are."""
        return [post(z, training=training) for post, z in zip(self.posts, latents)]

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> list[tf.Tensor]:
        """(images [B, H, W, 1] in [0, 1], seeds int64 [B]) → f_s(1) … f_s(n)."""
        images, seeds = inputs
        return self.features(self.sample(self.distributions(images, training), seeds), training)


class _Level(tf.keras.layers.Layer):
    """Bilinear up-sampling, convolution 2×2 with swish, then a `ConvBlock` on the skip connection and that, or on that alone."""

    def __init__(self, filters: int, momentum: float, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.enlarge = tf.keras.layers.UpSampling2D(2, interpolation="bilinear")
        self.convolution = _convolution(filters, 2, seed, "conv_up", activation=tf.nn.silu)
        self.block = ConvBlock(filters, momentum, layer_seed(seed, "block"), name="block")

    def call(self, x: tf.Tensor, skip: tf.Tensor | None, training: bool = False) -> tf.Tensor:
        x = self.convolution(self.enlarge(x))
        return self.block(x if skip is None else tf.concat([skip, x], -1), training=training)


class Decoder(tf.keras.Model):
    """The encoder's inverse.

    Args:
        filters, momentum, seed: as of `Encoder`.
        skips: whether each level also sees the features of its scale.
    """

    def __init__(self, filters: Sequence[int], skips: bool, momentum: float, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.skips = skips
        self.levels = [
            _Level(width, momentum, layer_seed(seed, f"level_{i}"), name=f"level_{i}") for i, width in enumerate(filters[:-1])
        ]
        self.head = _convolution(1, 1, seed, "head", dtype=tf.float32)

    def call(
        self, features: Sequence[tf.Tensor], styles: Sequence[tf.Tensor] | None = None, training: bool = False
    ) -> tf.Tensor:
        """Features of each scale, finest first → image float32 [B, H, W, 1] in (0, 1).

        Args:
            features: the last is the entry, the others are skip connections.
            styles: each level's output gets the channel statistics of its scale's; None: it is left as it is.
            training: as in Keras.
        """
        x = features[-1]
        for scale in reversed(range(len(self.levels))):
            x = self.levels[scale](x, features[scale] if self.skips else None, training=training)
            if styles is not None:
                x = adaptive_instance_normalization(x, styles[scale])
        return tf.sigmoid(self.head(tf.cast(x, tf.float32)))


def restyle(
    decoder: Decoder,
    content: Sequence[tf.Tensor],
    style: Sequence[tf.Tensor],
    site: Literal["decoder", "skip", "bottleneck"],
    training: bool = False,
) -> tf.Tensor:
    """Decodes f_c with the statistics of f_s: image float32 [B, H, W, 1].

    Args:
        decoder: without skip connections for 'bottleneck'.
        content: f_c of each scale, finest first.
        style: f_s of each scale, of any size in space.
        site: where, besides the coarsest scale, features are normalised.
        training: as in Keras.
    """
    entry = adaptive_instance_normalization(content[-1], style[-1])
    if site == "skip":
        skips = [adaptive_instance_normalization(c, s) for c, s in zip(content[:-1], style[:-1])]
        return decoder([*skips, entry], training=training)
    return decoder([*content[:-1], entry], style if site == "decoder" else None, training=training)
