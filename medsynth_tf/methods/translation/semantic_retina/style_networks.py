"""Stage 1's networks as a conditional StyleGAN: a generator of label maps led by styles, and the critic that grows with it.

After Karras, Laine and Aila (arXiv:1812.04948), and the progressive growing of Karras et al. (arXiv:1710.10196, table 2), as in
`progressive_networks`. All kernels have equalised learning rates. The grade enters the mapping network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.adaptive_normalization import StyleModulation
from medsynth_tf.layers.equalised import EqualisedConv2D, EqualisedDense
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.minibatch_deviation import MinibatchDeviation
from medsynth_tf.layers.noise_injection import NoiseInjection
from medsynth_tf.layers.normalization import InstanceNormalization, PixelNormalization
from medsynth_tf.layers.running_class_mean import RunningClassMean
from medsynth_tf.methods.translation.semantic_retina.progressive_networks import SIDE, fade
from medsynth_tf.ops.resize import downsample_average, upsample_nearest

STYLES_PER_LEVEL = 2


def noise_sizes(level: int) -> list[int]:
    """Pixels of each noise map that a label map of a level is made with, from coarse to fine."""
    return [(SIDE * 2**number) ** 2 for number in range(level + 1) for _ in range(STYLES_PER_LEVEL)]


class StyleMapping(tf.keras.layers.Layer):
    """Latent and grade to a style w: dense layers with LeakyReLU 0.2 on z beside a learned vector of the grade, in float32.

    Both halves are normalised to unit mean square by themselves, so that neither outgrows the other.

    Args:
        grades: number of grades.
        size: N, length of z, of the grade's vector and of w.
        depth: how many layers (8).
        learning_rate_multiplier: of the layers (0.01).
        seed: of all weights.
    """

    def __init__(
        self, grades: int, size: int, depth: int = 8, learning_rate_multiplier: float = 0.01, seed: int = 0, **kwargs: Any
    ):
        super().__init__(dtype=tf.float32, **kwargs)
        self.embedding = tf.keras.layers.Embedding(
            grades,
            size,
            embeddings_initializer=tf.keras.initializers.RandomNormal(0.0, 1.0, seed=layer_seed(seed, "embedding")),
            dtype=tf.float32,
            name="embedding",
        )
        self.norm = PixelNormalization(dtype=tf.float32, name="norm")
        self.dense_layers = [
            EqualisedDense(
                size,
                learning_rate_multiplier=learning_rate_multiplier,
                seed=layer_seed(seed, f"dense_{i}"),
                dtype=tf.float32,
                name=f"dense_{i}",
            )
            for i in range(depth)
        ]

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """(z float32 [B, N], grade int [B]) → w float32 [B, N]."""
        latent, grade = inputs
        x = tf.concat([self.norm(latent), self.norm(self.embedding(grade))], -1)
        for dense in self.dense_layers:
            x = tf.nn.leaky_relu(dense(x), 0.2)
        return x


class StyleEpilogue(tf.keras.layers.Layer):
    """What follows a convolution without bias: noise, bias, LeakyReLU 0.2, instance norm, style.

    Args:
        channels: C.
        seed: of all weights.
    """

    def __init__(self, channels: int, seed: int = 0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # the style stays float32
        self.noise = NoiseInjection(dtype=self.dtype_policy, name="noise")
        self.bias = self.add_weight(name="bias", shape=[channels], initializer="zeros")
        self.norm = InstanceNormalization(epsilon=1e-8, dtype=self.dtype_policy, name="norm")
        self.modulation = StyleModulation(seed=layer_seed(seed, "modulation"), dtype=self.dtype_policy, name="modulation")

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """(x [B, H, W, C], noise [B, H, W, 1], style float32 [B, N]) → [B, H, W, C]."""
        x, noise, style = inputs
        x = tf.nn.leaky_relu(tf.nn.bias_add(self.noise((x, noise)), self.bias), 0.2)
        return self.modulation((self.norm(x), style))


class StyleBlock(tf.keras.layers.Layer):
    """Twice [Conv3×3, epilogue], or an epilogue and then one of these, where the first input is no map but a learned constant.

    Args:
        filters: width.
        entry: whether the input is the constant.
        seed: of all weights.
    """

    def __init__(self, filters: int, entry: bool, seed: int = 0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # styles stay float32
        self.convolutions = [
            EqualisedConv2D(filters, 3, padding="same", use_bias=False, seed=layer_seed(seed, f"conv_{i}"), name=f"conv_{i}")
            for i in range(entry, STYLES_PER_LEVEL)
        ]
        # The constant begins as ones, whose deviation of 0 the norm divides by: its gradient is too large for half precision.
        dtypes = {"dtype": tf.float32} if entry else {}
        self.epilogues = [
            StyleEpilogue(filters, layer_seed(seed, f"epilogue_{i}"), name=f"epilogue_{i}", **(dtypes if i == 0 else {}))
            for i in range(STYLES_PER_LEVEL)
        ]

    def call(self, inputs: tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """(x [B, H, W, C], two noise maps [B, H, W, 1], styles float32 [B, 2, N]) → [B, H, W, filters]."""
        x, noise, styles = inputs
        without = STYLES_PER_LEVEL - len(self.convolutions)
        for i, epilogue in enumerate(self.epilogues):
            if i >= without:
                x = self.convolutions[i - without](x)
            x = epilogue((x, noise[i], styles[:, i]))
        return x


class StyleLabelGenerator(tf.keras.Model):
    """Latent, grade and noise to a soft label map of the side 4 · 2^level: a learned constant at 4×4, then for each level after the
    first nearest ×2 and a block; a 1×1 convolution and a softmax for each level make class probabilities.

    Args:
        filters: width of each level; there are as many levels.
        channels: K, classes and background.
        grades: number of grades.
        latent_size: N, length of z and of a style.
        mapping_layers: of the mapping network.
        mapping_learning_rate: its multiplier.
        truncation: ψ. Outside training a style w becomes w̄ + ψ (w - w̄), w̄ being the running mean of its grade's styles: towards the
            mean of all, grades would become alike.
        seed: of all weights.
    """

    def __init__(
        self,
        filters: Sequence[int],
        channels: int,
        grades: int = 5,
        latent_size: int = 512,
        mapping_layers: int = 8,
        mapping_learning_rate: float = 0.01,
        truncation: float = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.truncation = truncation
        self.mapping = StyleMapping(
            grades, latent_size, mapping_layers, mapping_learning_rate, layer_seed(seed, "mapping"), name="mapping"
        )
        self.mean_style = RunningClassMean(grades, latent_size, name="mean_style")
        self.constant = self.add_weight(
            name="constant", shape=[1, SIDE, SIDE, filters[0]], initializer="ones", experimental_autocast=False
        )
        self.blocks = [
            StyleBlock(width, entry=level == 0, seed=layer_seed(seed, f"block_{level}"), name=f"block_{level}")
            for level, width in enumerate(filters)
        ]
        self.heads = [
            EqualisedConv2D(
                channels, 1, gain=1.0, seed=layer_seed(seed, f"head_{level}"), dtype=tf.float32, name=f"head_{level}"
            )
            for level in range(len(filters))
        ]
        for level in range(len(filters)):
            inputs = {"latent": tf.keras.Input([latent_size]), "grade": tf.keras.Input([], dtype=tf.int32)}
            self({**inputs, "noise": tf.keras.Input([sum(noise_sizes(level))])}, level=level)

    def styles(self, inputs: dict[str, tf.Tensor], level: int, training: bool) -> tf.Tensor:
        """The style of every epilogue, from coarse to fine: float32 [B, 2 · (level + 1), N]; see `call`."""
        style = self.mapping((inputs["latent"], inputs["grade"]))
        if training:
            self.mean_style.observe(style, inputs["grade"])
        elif self.truncation < 1.0:
            mean = self.mean_style(inputs["grade"])
            style = mean + self.truncation * (style - mean)
        count = STYLES_PER_LEVEL * (level + 1)
        styles = tf.repeat(style[:, tf.newaxis], count, axis=1)
        if "crossover" not in inputs:
            return styles
        other = self.mapping((inputs["other_latent"], inputs["grade"]))
        crossed = tf.range(count) >= inputs["crossover"][:, tf.newaxis]
        return tf.where(crossed[..., tf.newaxis], other[:, tf.newaxis], styles)

    def call(
        self, inputs: dict[str, tf.Tensor], level: int, alpha: tf.Tensor | float | None = None, training: bool = False
    ) -> tf.Tensor:
        """→ class probabilities [B, S, S, K] float32, S = 4 · 2^level.

        Args:
            inputs: {"latent": float32 [B, N], "grade": int [B], "noise": float32 [B, Σ noise_sizes(level)]}; with style mixing also
                "other_latent" float32 [B, N], whose style takes over from the epilogue with the number "crossover", int [B], on.
            level: 0 …, which decides what is computed.
            alpha: share of the level's own head in 0 … 1, the rest being the previous level's output enlarged; None: 1, without
                computing that. Nothing is before level 0, which takes no notice of it.
            training: the running means of styles move; otherwise styles are truncated.
        """
        styles = self.styles(inputs, level, training)
        noise = [
            tf.reshape(numbers, [-1, SIDE * 2 ** (i // STYLES_PER_LEVEL), SIDE * 2 ** (i // STYLES_PER_LEVEL), 1])
            for i, numbers in enumerate(tf.split(inputs["noise"], noise_sizes(level), axis=-1))
        ]
        x, previous = tf.repeat(self.constant, tf.shape(styles)[0], axis=0), None
        for number, block in enumerate(self.blocks[: level + 1]):
            if number > 0:
                previous, x = x, upsample_nearest(x)
            own = slice(STYLES_PER_LEVEL * number, STYLES_PER_LEVEL * (number + 1))
            x = block((x, noise[own], styles[:, own]))
        probabilities = tf.nn.softmax(self.heads[level](x))
        if alpha is None or previous is None:
            return probabilities
        return fade(upsample_nearest(tf.nn.softmax(self.heads[level - 1](previous))), probabilities, alpha)

    def variables_of(self, level: int) -> list[tf.Variable]:
        """What a level trains: mapping, constant, its block and those below, its head and the one that it fades from."""
        parts: list[tf.keras.layers.Layer] = [
            self.mapping,
            *self.blocks[: level + 1],
            *self.heads[max(0, level - 1) : level + 1],
        ]
        return [self.constant, *(variable for part in parts for variable in part.trainable_variables)]


class StyleLabelDiscriminator(tf.keras.Model):
    """Critic's score, and grade, of label planes of the side 4 · 2^level: a 1×1 convolution from planes for each level, then for each
    level down to the second twice Conv3×3 and an average over 2×2 pixels; at 4×4 the batch's deviation, Conv3×3, Conv4×4 and two
    heads. LeakyReLU 0.2 follows each convolution. It has no batch norm, since the gradient penalty is on each sample's slope.

    It computes in float32 whatever the policy: the slope inside the penalty is found without a loss scale, and half precision
    would lose it.

    Args:
        filters: width of each level, as the generator's; there are as many levels.
        channels: K, classes and background.
        grades: number of grades.
        minibatch_group: maps that share a deviation.
        seed: of all weights.
    """

    def __init__(
        self, filters: Sequence[int], channels: int, grades: int = 5, minibatch_group: int = 4, seed: int = 0, **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)

        def convolution(width: int, kernel: int, name: str, padding: str = "same") -> EqualisedConv2D:
            return EqualisedConv2D(width, kernel, padding=padding, seed=layer_seed(seed, name), dtype=tf.float32, name=name)

        def head(units: int, name: str) -> EqualisedDense:
            return EqualisedDense(units, gain=1.0, seed=layer_seed(seed, name), dtype=tf.float32, name=name)

        self.entries = [convolution(width, 1, f"entry_{level}") for level, width in enumerate(filters)]
        self.deviation = MinibatchDeviation(minibatch_group, dtype=tf.float32, name="deviation")
        self.convolutions = [[convolution(filters[0], 3, "conv_0_0"), convolution(filters[0], SIDE, "conv_0_1", "valid")]]
        for level in range(1, len(filters)):
            widths = filters[level], filters[level - 1]
            self.convolutions.append([convolution(width, 3, f"conv_{level}_{i}") for i, width in enumerate(widths)])
        self.score, self.grade = head(1, "score"), head(grades, "grade")
        for level in range(len(filters)):
            self(tf.keras.Input([SIDE * 2**level, SIDE * 2**level, channels]), level=level)

    def call(
        self, planes: tf.Tensor, level: int, alpha: tf.Tensor | float | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Label planes float32 [B, S, S, K], S = 4 · 2^level → {"score": [B, 1], "grade": logits [B, grades]}, float32.

        Args:
            planes: as above.
            level: 0 …, which decides what is computed.
            alpha: share of the level's own convolutions in 0 … 1, the rest being the previous level's entry on the planes averaged
                over 2×2 pixels; None: 1, without computing that. Level 0 takes no notice of it.
            training: changes nothing here.
        """
        x = self._activated(self.entries[level], planes)
        for number in range(level, 0, -1):
            for convolution in self.convolutions[number]:
                x = self._activated(convolution, x)
            x = downsample_average(x, 2)
            if number == level and alpha is not None:
                x = fade(self._activated(self.entries[level - 1], downsample_average(planes, 2)), x, alpha)
        x = self.deviation(x)
        for convolution in self.convolutions[0]:
            x = self._activated(convolution, x)
        x = tf.reshape(x, [-1, x.shape[-1]])
        return {"score": self.score(x), "grade": self.grade(x)}

    @staticmethod
    def _activated(convolution: EqualisedConv2D, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.leaky_relu(convolution(x), 0.2)

    def variables_of(self, level: int) -> list[tf.Variable]:
        """What a level trains: its convolutions and those below, its entry and the one that it fades from, the heads."""
        below = [convolution for pair in self.convolutions[: level + 1] for convolution in pair]
        entries = self.entries[max(0, level - 1) : level + 1]
        parts: list[tf.keras.layers.Layer] = [*entries, *below, self.score, self.grade]
        return [variable for part in parts for variable in part.trainable_variables]
