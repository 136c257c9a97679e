"""Generators, mapping network and discriminators of DR-GAN (Zhou et al., arXiv:1912.04670, section III, fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.adaptive_normalization import AdaptiveInstanceNormalization
from medsynth_tf.layers.attention import SpatialChannelAttention
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization, InstanceNormalization
from medsynth_tf.methods.translation.dr_gan.config import SCALES, AttentionConfig


def small_normal(seed: int, name: str) -> tf.keras.initializers.Initializer:
    """N(0, 0.02), of pix2pixHD; the paper names none."""
    return tf.keras.initializers.RandomNormal(stddev=0.02, seed=layer_seed(seed, name))


def plane_pyramid(planes: tf.Tensor, levels: int) -> list[tf.Tensor]:
    """The planes and their halves by 2×2 means, finest first: [B, S, S, K] → `levels` times [B, S/2ⁱ, S/2ⁱ, K].

    A mean keeps what a microaneurysm of one pixel covers; picking pixels would lose three in four of them.
    """
    pyramid = [planes]
    for _ in range(levels - 1):
        pyramid.append(tf.nn.avg_pool2d(pyramid[-1], 2, 2, "VALID"))
    return pyramid


class ConvolutionBlock(tf.keras.layers.Layer):
    """[convolution without bias, batch norm, ReLU]; transposed at stride 2 if asked.

    Args:
        filters: output width.
        size: of the kernel.
        stride: 1 or 2.
        transposed: doubles the resolution instead of halving it.
        activated: whether the ReLU is there.
        seed: of the kernel.
    """

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        transposed: bool = False,
        activated: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        kind = tf.keras.layers.Conv2DTranspose if transposed else tf.keras.layers.Conv2D
        self.convolution = kind(
            filters,
            size,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer=small_normal(seed, "convolution"),
            name="convolution",
        )
        self.norm = BatchNormalization(name="norm")
        self.activated = activated

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H', W', filters]."""
        x = self.norm(self.convolution(x), training=training)
        return tf.nn.relu(x) if self.activated else x


class ResidualBlock(tf.keras.layers.Layer):
    """x + [conv3, norm, ReLU, conv3, norm](x).

    Args:
        filters: width of x.
        seed: of the kernels.
    """

    def __init__(self, filters: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.first = ConvolutionBlock(filters, seed=layer_seed(seed, "first"), name="first")
        self.second = ConvolutionBlock(filters, activated=False, seed=layer_seed(seed, "second"), name="second")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → the same shape."""
        return x + self.second(self.first(x, training=training), training=training)


class MappingNetwork(tf.keras.Model):
    """Grading vector to style: dense layers with LeakyReLU 0.2, in float32.

    Args:
        layers: how many (4).
        width: of each (512).
        seed: of the kernels.
    """

    def __init__(self, layers: int, width: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.dense = [
            tf.keras.layers.Dense(
                width,
                kernel_initializer=tf.keras.initializers.HeNormal(layer_seed(seed, f"dense_{i}")),
                dtype=tf.float32,
                name=f"dense_{i}",
            )
            for i in range(layers)
        ]

    def call(self, vector: tf.Tensor) -> tf.Tensor:
        """[B, F] → [B, width] float32."""
        for dense in self.dense:
            vector = tf.nn.leaky_relu(dense(vector), 0.2)
        return vector


class SynthesisBlock(tf.keras.layers.Layer):
    """One scale of the decoder: adaptive grading manipulation, the masks and the encoder's features, attention, then twice the size.

    1. C/4 channels of noise are concatenated, a 1×1 convolution fuses them to C; AdaIN by the style (batch norm without one); ReLU.
    2. Encoder features and masks of this scale are concatenated; a 3×3 convolution to C with batch norm and ReLU.
    3. Spatial and channel attention.
    4. A transposed 3×3 convolution at stride 2 to C/2 with batch norm and ReLU.

    Args:
        filters: C.
        adaptive: AdaIN by a style; else batch norm.
        attention: settings of step 3; None leaves it out.
        reduction: d of the spatial attention.
        seed: of the kernels.
    """

    def __init__(
        self, filters: int, adaptive: bool, attention: AttentionConfig | None, reduction: int, seed: int = 0, **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)  # styles, masks and noise come as float32
        self.noise_channels = filters // 4
        self.fuse_noise = tf.keras.layers.Conv2D(
            filters, 1, kernel_initializer=small_normal(seed, "fuse_noise"), name="fuse_noise"
        )
        self.adain = AdaptiveInstanceNormalization(seed=layer_seed(seed, "adain"), name="adain") if adaptive else None
        self.norm = None if adaptive else BatchNormalization(name="norm")
        self.fuse_masks = ConvolutionBlock(filters, seed=layer_seed(seed, "fuse_masks"), name="fuse_masks")
        self.attention: SpatialChannelAttention | None = None
        if attention is not None:
            self.attention = SpatialChannelAttention(
                reduction,
                attention.implementation,
                attention.chunk_rows,
                attention.pooled_side,
                attention.channel_energy,
                seed=layer_seed(seed, "attention"),
                name="attention",
            )
        self.enlarge = ConvolutionBlock(
            filters // 2, stride=2, transposed=True, seed=layer_seed(seed, "enlarge"), name="enlarge"
        )

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"features" [B, H, W, C], "noise" [B, H, W, C/4], "skip" [B, H, W, C], "planes" [B, H, W, K], "style" [B, N] if adaptive}
        → [B, 2H, 2W, C/2]."""
        features = inputs["features"]
        x = self.fuse_noise(tf.concat([features, tf.cast(inputs["noise"], features.dtype)], -1))
        if self.adain is not None:
            x = self.adain((x, inputs["style"]))
        elif self.norm is not None:
            x = self.norm(x, training=training)
        x = tf.concat([tf.nn.relu(x), inputs["skip"], tf.cast(inputs["planes"], x.dtype)], -1)
        x = self.fuse_masks(x, training=training)
        if self.attention is not None:
            x = self.attention(x)
        return self.enlarge(x, training=training)


class CoarseGenerator(tf.keras.Model):
    """G_m: four encoding convolutions, residual blocks, three synthesis blocks; a grade head on the last encoding.

    Args:
        filters: F; the scales have F, 2F, 4F and 8F channels.
        residual_blocks: how many.
        grades: classes of the grade head.
        adaptive: whether a style manipulates the synthesis blocks.
        attention: of the synthesis blocks; None leaves it out.
        seed: of the kernels.
    """

    def __init__(
        self,
        filters: int,
        residual_blocks: int,
        grades: int,
        adaptive: bool,
        attention: AttentionConfig | None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoding = [
            ConvolutionBlock(
                filters * 2**i,
                size=3 if i else 7,
                stride=2 if i else 1,
                seed=layer_seed(seed, f"encoding_{i}"),
                name=f"encoding_{i}",
            )
            for i in range(SCALES + 1)
        ]
        self.grade_head = tf.keras.layers.Conv2D(
            grades, 3, padding="same", kernel_initializer=small_normal(seed, "grade_head"), name="grade_head"
        )
        deepest = filters * 2**SCALES
        self.residuals = [
            ResidualBlock(deepest, layer_seed(seed, f"residual_{i}"), name=f"residual_{i}") for i in range(residual_blocks)
        ]
        self.synthesis = [
            SynthesisBlock(
                deepest // 2**i,
                adaptive,
                attention,
                attention.reductions[i] if attention is not None else 1,
                layer_seed(seed, f"synthesis_{i}"),
                name=f"synthesis_{i}",
            )
            for i in range(SCALES)
        ]

    def noise_shapes(self, size: int) -> list[tuple[int, int, int]]:
        """Of one sample's noise volumes, coarsest first, for images of this side."""
        sides = [size // 2 ** (SCALES - i) for i in range(SCALES)]
        return [(side, side, block.noise_channels) for side, block in zip(sides, self.synthesis)]

    def encode(self, planes: tf.Tensor, training: bool = False) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Planes [B, S, S, K] → the four encodings, finest first, and grade logits [B, grades] float32."""
        encodings: list[tf.Tensor] = []
        x = planes
        for block in self.encoding:
            x = block(x, training=training)
            encodings.append(x)
        return encodings, tf.reduce_mean(tf.cast(self.grade_head(x), tf.float32), axis=[1, 2])

    def decode(
        self,
        encodings: Sequence[tf.Tensor],
        pyramid: Sequence[tf.Tensor],
        noise: Sequence[tf.Tensor],
        style: tf.Tensor | None,
        training: bool = False,
    ) -> tf.Tensor:
        """Encodings, the planes' pyramid (finest first), noise volumes (coarsest first) and style → features [B, S, S, F]."""
        x = encodings[-1]
        for block in self.residuals:
            x = block(x, training=training)
        for i, block in enumerate(self.synthesis):
            inputs = {"features": x, "noise": noise[i], "skip": encodings[SCALES - i], "planes": pyramid[SCALES - i]}
            if style is not None:
                inputs["style"] = style
            x = block(inputs, training=training)
        return x

    def call(self, inputs: dict[str, Any], training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """{"planes" [B, S, S, K], "noise" three volumes, "style" [B, N] if adaptive} → features [B, S, S, F], grade logits."""
        pyramid = plane_pyramid(inputs["planes"], SCALES + 1)
        encodings, logits = self.encode(pyramid[0], training)
        return self.decode(encodings, pyramid, inputs["noise"], inputs.get("style"), training), logits


class ImageHead(tf.keras.layers.Layer):
    """A 7×7 convolution to colours and tanh, in float32; G_m's while it is trained alone.

    Args:
        seed: of the kernel.
    """

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolution = tf.keras.layers.Conv2D(
            3, 7, padding="same", kernel_initializer=small_normal(seed, "convolution"), dtype=tf.float32, name="convolution"
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C] → images [B, S, S, 3] float32 in [-1, 1]."""
        return tf.tanh(self.convolution(tf.cast(features, tf.float32)))


class FineGenerator(tf.keras.Model):
    """G_l: two convolutions of the full-size masks; their result plus G_m's last features; up to the full size.

    Args:
        filters: width of the first convolution and at full size (32).
        coarse_filters: G_m's width, that of the sum (64).
        seed: of the kernels.
    """

    def __init__(self, filters: int, coarse_filters: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.first = ConvolutionBlock(filters, size=7, seed=layer_seed(seed, "first"), name="first")
        self.second = ConvolutionBlock(coarse_filters, stride=2, seed=layer_seed(seed, "second"), name="second")
        self.enlarge = ConvolutionBlock(filters, stride=2, transposed=True, seed=layer_seed(seed, "enlarge"), name="enlarge")
        self.to_image = ImageHead(layer_seed(seed, "to_image"), name="to_image")

    def join(self, planes: tf.Tensor, coarse: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Planes [B, 2S, 2S, K] and G_m's features [B, S, S, C] → their sum [B, S, S, C]."""
        return self.second(self.first(planes, training=training), training=training) + coarse

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """(planes [B, 2S, 2S, K], G_m's features [B, S, S, C]) → images [B, 2S, 2S, 3] float32 in [-1, 1]."""
        return self.to_image(self.enlarge(self.join(*inputs, training=training), training=training))


class GradedDiscriminator(tf.keras.Model):
    """Four 4×4 convolutions at stride 2 with LeakyReLU 0.2, global average pooling, a real/fake and a grade head.

    Args:
        filters: F; the convolutions have F, 2F, 4F and 8F.
        grades: classes of the grade head; None for none.
        norm: 'none', or 'instance' after the second to fourth convolution.
        seed: of the kernels.
    """

    def __init__(self, filters: int, grades: int | None, norm: str = "none", seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [
            tf.keras.layers.Conv2D(
                filters * 2**i, 4, 2, padding="same", kernel_initializer=small_normal(seed, f"conv_{i}"), name=f"conv_{i}"
            )
            for i in range(4)
        ]
        self.norms = [InstanceNormalization(name=f"norm_{i}") if norm == "instance" and i else None for i in range(4)]
        self.score = self._head(1, seed, "score")
        self.grade_head = self._head(grades, seed, "grade_head") if grades is not None else None

    @staticmethod
    def _head(units: int, seed: int, name: str) -> tf.keras.layers.Dense:
        return tf.keras.layers.Dense(units, kernel_initializer=small_normal(seed, name), dtype=tf.float32, name=name)

    def call(self, x: tf.Tensor) -> dict[str, Any]:
        """[B, H, W, C] → {"score" [B, 1], "grade_logits" [B, grades] if there is a grade head, "features": four maps}."""
        features: list[tf.Tensor] = []
        for convolution, norm in zip(self.convolutions, self.norms):
            x = convolution(x) if norm is None else norm(convolution(x))
            x = tf.nn.leaky_relu(x, 0.2)
            features.append(x)
        pooled = tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2])
        outputs: dict[str, Any] = {"score": self.score(pooled), "features": features}
        if self.grade_head is not None:
            outputs["grade_logits"] = self.grade_head(pooled)
        return outputs


class DiscriminatorPyramid(tf.keras.Model):
    """Equal discriminators with weights of their own on the input, on its half by 2×2 means, on its quarter …

    Args:
        count: how many.
        filters, grades, norm, seed: as for GradedDiscriminator.
    """

    def __init__(self, count: int, filters: int, grades: int | None, norm: str = "none", seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.discriminators = [
            GradedDiscriminator(filters, grades, norm, layer_seed(seed, f"scale_{i}"), name=f"scale_{i}") for i in range(count)
        ]

    def call(self, x: tf.Tensor) -> list[dict[str, Any]]:
        """Image and planes [B, S, S, 3 + K] → the outputs of each discriminator, finest first."""
        return [part(level) for part, level in zip(self.discriminators, plane_pyramid(x, len(self.discriminators)))]
