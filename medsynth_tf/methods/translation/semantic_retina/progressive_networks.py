"""Stage 1's networks as a progressive GAN: a generator of label maps and a discriminator that grow together from 4×4.

Level 0 works at 4×4 and each level doubles the side. A new level is faded in by α, from 0 (the previous level enlarged) to 1 (its own
output), after Karras et al. (arXiv:1710.10196, section 2 and figure 2). The grade enters the generator by conditional batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.conditional_normalization import ConditionalBatchNormalization
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.translation.semantic_retina.label_networks import (
    batch_norm,
    convolve,
    discriminator_convolution,
    discriminator_widths,
    normal_kernel,
    pad,
)
from medsynth_tf.ops.resize import downsample_average, upsample_nearest

SIDE = 4  # of level 0


def fade(old: tf.Tensor, new: tf.Tensor, alpha: tf.Tensor | float) -> tf.Tensor:
    """(1 - α) · old + α · new, in new's dtype: exactly one of the two at α = 0 and at α = 1."""
    alpha = tf.cast(alpha, new.dtype)
    return (1.0 - alpha) * old + alpha * new


class ProgressiveGeneratorBlock(tf.keras.layers.Layer):
    """Some times [Conv3×3, conditional batch norm, ReLU].

    Args:
        filters: width.
        grades: number of grades.
        depth: how many convolutions.
        seed: of all weights.
    """

    def __init__(self, filters: int, grades: int, depth: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [
            tf.keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=False,  # the norm's offset takes its place
                kernel_initializer=normal_kernel(seed, f"conv_{i}"),
                name=f"conv_{i}",
            )
            for i in range(depth)
        ]
        self.norms = [
            ConditionalBatchNormalization(grades, seed=layer_seed(seed, f"norm_{i}"), name=f"norm_{i}") for i in range(depth)
        ]

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """(x [B, H, W, C], grade int [B]) → [B, H, W, filters]."""
        x, grade = inputs
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.nn.relu(norm((convolution(x), grade), training=training))
        return x


class ProgressiveLabelGenerator(tf.keras.Model):
    """Latent and grade to a soft label map of the side 4 · 2^level: Dense to 4×4, then for each level after the first nearest ×2 and
    a block; a 1×1 convolution and a softmax for each level make class probabilities.

    Args:
        filters: width of each level; there are as many levels.
        channels: K, classes and background.
        grades: number of grades.
        latent_size: length of z.
        seed: of all weights.
    """

    def __init__(
        self, filters: Sequence[int], channels: int, grades: int = 5, latent_size: int = 128, seed: int = 0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.dense = tf.keras.layers.Dense(
            SIDE**2 * self.filters[0], kernel_initializer=normal_kernel(seed, "dense"), name="dense"
        )
        self.blocks = [
            ProgressiveGeneratorBlock(
                width, grades, depth=1 if level == 0 else 2, seed=layer_seed(seed, f"block_{level}"), name=f"block_{level}"
            )
            for level, width in enumerate(self.filters)
        ]
        self.heads = [
            tf.keras.layers.Conv2D(
                channels, 1, kernel_initializer=normal_kernel(seed, f"head_{level}"), dtype=tf.float32, name=f"head_{level}"
            )
            for level in range(len(self.filters))
        ]
        inputs = {"latent": tf.keras.Input([latent_size]), "grade": tf.keras.Input([], dtype=tf.int32)}
        for level in range(len(self.filters)):
            self(inputs, level=level)

    def call(
        self, inputs: dict[str, tf.Tensor], level: int, alpha: tf.Tensor | float | None = None, training: bool = False
    ) -> tf.Tensor:
        """{"latent": [B, N], "grade": int [B]} → class probabilities [B, S, S, K] float32, S = 4 · 2^level.

        Args:
            inputs: as above.
            level: 0 …, which decides what is computed.
            alpha: share of the level's own head in 0 … 1, the rest being the previous level's output enlarged; None: 1, without
                computing that. Nothing is before level 0, which takes no notice of it.
            training: normalise by the batch.
        """
        x, previous = tf.reshape(self.dense(inputs["latent"]), [-1, SIDE, SIDE, self.filters[0]]), None
        for number, block in enumerate(self.blocks[: level + 1]):
            if number > 0:
                previous, x = x, upsample_nearest(x)
            x = block((x, inputs["grade"]), training=training)
        probabilities = tf.nn.softmax(self.heads[level](x))
        if alpha is None or previous is None:
            return probabilities
        return fade(upsample_nearest(tf.nn.softmax(self.heads[level - 1](previous))), probabilities, alpha)

    def variables_of(self, level: int) -> list[tf.Variable]:
        """What a level trains: its block and those below, its head and the one that it fades from."""
        parts = [self.dense, *self.blocks[: level + 1], *self.heads[max(0, level - 1) : level + 1]]
        return [variable for part in parts for variable in part.trainable_variables]


class ProgressiveLabelDiscriminator(tf.keras.Model):
    """Score and grade of label planes of the side 4 · 2^level: a 1×1 convolution from planes for each level, then for each level down
    to the second [Conv3×3 at stride 2, BatchNorm, LeakyReLU 0.2], one such convolution at stride 1 at 4×4, and two dense heads.

    As in `LabelDiscriminator`, whose widths and depth it has, the finest map has the fewest channels.

    Args:
        levels: how many.
        channels: K, classes and background.
        grades: number of grades.
        filters: F, width at the finest level; then 2F, 4F, 8F, 16F, 16F … down to 4×4.
        spectral_norm: normalise the kernels of the convolutions.
        seed: of all weights.
    """

    def __init__(
        self,
        levels: int,
        channels: int,
        grades: int = 5,
        filters: int = 8,
        spectral_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        widths = discriminator_widths(filters, levels)[::-1]  # of level 0 first
        self.entries = [
            discriminator_convolution(width, 1, 1, spectral_norm, seed, f"entry_{level}") for level, width in enumerate(widths)
        ]
        # level 0 keeps its side, the others halve theirs and have the width of the level below from there on
        self.convolutions = [
            discriminator_convolution(
                widths[max(0, level - 1)], 3, 1 if level == 0 else 2, spectral_norm, seed, f"conv_{level}"
            )
            for level in range(levels)
        ]
        self.norms = [batch_norm(seed, f"norm_{level}") for level in range(levels)]
        self.score = tf.keras.layers.Dense(1, kernel_initializer=normal_kernel(seed, "score"), dtype=tf.float32, name="score")
        self.grade = tf.keras.layers.Dense(
            grades, kernel_initializer=normal_kernel(seed, "grade"), dtype=tf.float32, name="grade"
        )
        for level in range(levels):
            self(tf.keras.Input([SIDE * 2**level, SIDE * 2**level, channels]), level=level)

    def call(
        self, planes: tf.Tensor, level: int, alpha: tf.Tensor | float | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Label planes [B, S, S, K], S = 4 · 2^level → {"score": [B, 1], "grade": logits [B, grades]}, float32.

        Args:
            planes: as above.
            level: 0 …, which decides what is computed.
            alpha: share of the level's own convolutions in 0 … 1, the rest being the previous level's entry on the planes averaged
                over 2×2 pixels; None: 1, without computing that. Level 0 takes no notice of it.
            training: normalise by the batch.
        """
        x = self._enter(level, planes, training)
        for number in range(level, -1, -1):
            x = convolve(self.convolutions[number], pad(x), training)
            x = tf.nn.leaky_relu(self.norms[number](x, training=training), 0.2)
            if number == level > 0 and alpha is not None:
                x = fade(self._enter(level - 1, downsample_average(planes, 2), training), x, alpha)
        x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
        return {"score": self.score(x), "grade": self.grade(x)}

    def _enter(self, level: int, planes: tf.Tensor, training: bool) -> tf.Tensor:
        return tf.nn.leaky_relu(convolve(self.entries[level], planes, training), 0.2)

    def variables_of(self, level: int) -> list[tf.Variable]:
        """What a level trains: its convolutions and those below, its entry and the one that it fades from, the heads."""
        parts = [
            *self.entries[max(0, level - 1) : level + 1],
            *self.convolutions[: level + 1],
            *self.norms[: level + 1],
            self.score,
            self.grade,
        ]
        return [variable for part in parts for variable in part.trainable_variables]
