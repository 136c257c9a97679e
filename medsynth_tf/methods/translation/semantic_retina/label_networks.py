"""Stage 1's networks: a large generator of label maps by grade and a small discriminator (imbalanced capacities)."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization, SpectralConv2D
from medsynth_tf.ops.resize import upsample_nearest


def normal_kernel(seed: int, name: str) -> tf.keras.initializers.Initializer:
    """N(0, 0.02), for the kernel of the layer called `name`."""
    return tf.keras.initializers.RandomNormal(0.0, 0.02, seed=layer_seed(seed, name))


def batch_norm(seed: int, name: str) -> BatchNormalization:
    """Batch norm called `name`, its scales from N(1, 0.02)."""
    gamma = tf.keras.initializers.RandomNormal(1.0, 0.02, seed=layer_seed(seed, name))
    return BatchNormalization(gamma_initializer=gamma, name=name)


def discriminator_widths(filters: int, count: int) -> list[int]:
    """F, 2F, 4F, 8F, 16F, 16F … from the finest map on: `count` of them."""
    return [filters * min(2**i, 16) for i in range(count)]


def discriminator_convolution(
    width: int, kernel: int, stride: int, spectral_norm: bool, seed: int, name: str
) -> tf.keras.layers.Conv2D:
    """A discriminator's convolution called `name`, without bias and without padding."""
    common: dict[str, Any] = {"use_bias": False, "kernel_initializer": normal_kernel(seed, name), "name": name}
    if spectral_norm:
        return SpectralConv2D(width, kernel, stride, "valid", seed=layer_seed(seed, name), **common)
    return tf.keras.layers.Conv2D(width, kernel, stride, "valid", **common)


def convolve(convolution: tf.keras.layers.Conv2D, x: tf.Tensor, training: bool) -> tf.Tensor:
    """Calls a `discriminator_convolution`, of which only the spectrally normalised kind asks whether this is training."""
    return convolution(x, training=training) if isinstance(convolution, SpectralConv2D) else convolution(x)


def pad(x: tf.Tensor) -> tf.Tensor:
    """One pixel of zeros all round: symmetric, unlike "same" at stride 2."""
    return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])


class LabelGenerator(tf.keras.Model):
    """Latent and grade to a soft label map: Dense, then n times [nearest ×2, Conv3×3, BatchNorm, ReLU], Conv3×3, softmax.

    Widths after the dense layer's F are F/2, F/4 …, K; the dense map's side is size/2ⁿ, 4 in the paper.

    Args:
        size: side of the maps, a multiple of 2ⁿ (256 in the paper).
        channels: K, classes and background.
        grades: number of grades.
        latent_size: length of z (128).
        filters: F (512).
        conditioning: 'multiply': z times a learned vector of the grade; 'concat': z beside one of `grades` numbers.
        doublings: n (6).
        seed: of all weights.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        grades: int = 5,
        latent_size: int = 128,
        filters: int = 512,
        conditioning: Literal["multiply", "concat"] = "multiply",
        doublings: int = 6,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.side, self.filters, self.conditioning = size // 2**doublings, filters, conditioning
        self.embedding = tf.keras.layers.Embedding(
            grades,
            latent_size if conditioning == "multiply" else grades,
            embeddings_initializer=tf.keras.initializers.RandomNormal(0.0, 1.0, seed=layer_seed(seed, "embedding")),
            name="embedding",
        )
        self.dense = tf.keras.layers.Dense(
            filters * self.side**2, kernel_initializer=normal_kernel(seed, "dense"), name="dense"
        )
        widths = [max(1, filters // 2 ** (i + 1)) for i in range(doublings - 1)] + [channels]
        self.convolutions = [
            tf.keras.layers.Conv2D(
                width, 3, padding="same", kernel_initializer=normal_kernel(seed, f"conv_{i}"), name=f"conv_{i}"
            )
            for i, width in enumerate(widths)
        ]
        self.norms = [batch_norm(seed, f"norm_{i}") for i in range(doublings)]
        self.to_classes = tf.keras.layers.Conv2D(
            channels,
            3,
            padding="same",
            kernel_initializer=normal_kernel(seed, "to_classes"),
            dtype=tf.float32,
            name="to_classes",
        )

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"latent": [B, N], "grade": int [B]} → class probabilities [B, S, S, K] float32."""
        latent, grade = inputs["latent"], self.embedding(inputs["grade"])
        x = latent * grade if self.conditioning == "multiply" else tf.concat([latent, grade], -1)
        x = tf.reshape(self.dense(x), [-1, self.side, self.side, self.filters])
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.nn.relu(norm(convolution(upsample_nearest(x)), training=training))
        return tf.nn.softmax(self.to_classes(x))


class LabelDiscriminator(tf.keras.Model):
    """n times [Conv3×3 at stride 2 without bias, BatchNorm, LeakyReLU 0.2], then dense heads for the score and for the grade.

    The last map must not be 1×1: batch norm would give each of its channels the same mean and deviation in real and in generated
    batches, and leave the score next to nothing to tell them by.

    Args:
        grades: number of grades.
        filters: F; widths are F, 2F, 4F, 8F, 16F, 16F (F = 8 in the paper against the generator's 512).
        spectral_norm: normalise the kernels of the convolutions.
        halvings: n (6).
        seed: of all weights.
    """

    def __init__(
        self,
        grades: int = 5,
        filters: int = 8,
        spectral_norm: bool = False,
        halvings: int = 6,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.convolutions = [
            discriminator_convolution(width, 3, 2, spectral_norm, seed, f"conv_{i}")
            for i, width in enumerate(discriminator_widths(filters, halvings))
        ]
        self.norms = [batch_norm(seed, f"norm_{i}") for i in range(halvings)]
        self.score = tf.keras.layers.Dense(1, kernel_initializer=normal_kernel(seed, "score"), dtype=tf.float32, name="score")
        self.grade = tf.keras.layers.Dense(
            grades, kernel_initializer=normal_kernel(seed, "grade"), dtype=tf.float32, name="grade"
        )

    def call(self, planes: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Label planes [B, S, S, K] → {"score": [B, 1], "grade": logits [B, grades]}, float32."""
        x = planes
        for convolution, norm in zip(self.convolutions, self.norms):
            x = convolve(convolution, pad(x), training)
            x = tf.nn.leaky_relu(norm(x, training=training), 0.2)
        x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
        return {"score": self.score(x), "grade": self.grade(x)}
