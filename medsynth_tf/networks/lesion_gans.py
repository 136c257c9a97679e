"""Generators and discriminators of DCGAN, LSGAN, WGAN-GP and AC-GAN for images of sixteen times a small start, such as 80 = 5·2⁴.

Source: Tronchin et al., "Evaluating GANs in Medical Imaging", table 3 (kernels, activations, norms), which adapts depth and width
of the original papers to 80×80 without printing the layers. Widths here are multiples of one number each; the defaults are ours for
DCGAN, LSGAN and AC-GAN, and the first author's earlier code's for WGAN-GP. All generators take latent vectors [B, N] to float32
[B, S, S, C] in [-1, 1]; all discriminators take images to float32 logits or scores [B].
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization

DOUBLINGS = 4
SLOPE = 0.2
ACTIVATIONS = ("relu", "leaky_relu")
INITIALISERS = ("glorot_uniform", "he_uniform", "n002")
_DROPOUT = 0.5


class Parts:
    """Makes layers that share a kernel size, an initialiser, an activation and whether there is batch norm.

    Args:
        kernel: side of the convolutions.
        initialiser: 'glorot_uniform', 'he_uniform' or 'n002', N(0, 0.02).
        activation: 'relu' or 'leaky_relu' (slope 0.2).
        norm: batch norm after hidden layers.
        seed: of all kernels; each layer's own derives from its name.
    """

    def __init__(self, kernel: int, initialiser: str, activation: str, norm: bool, seed: int):
        if activation not in ACTIVATIONS or initialiser not in INITIALISERS:
            raise ValueError(f"activation '{activation}', initialiser '{initialiser}': expected {ACTIVATIONS}, {INITIALISERS}")
        self.kernel, self.initialiser, self.activation, self.norm, self.seed = kernel, initialiser, activation, norm, seed

    def start(self, name: str) -> tf.keras.initializers.Initializer:
        """A layer's initialiser."""
        seed = layer_seed(self.seed, name)
        if self.initialiser == "n002":
            return tf.keras.initializers.RandomNormal(0.0, 0.02, seed)
        kinds = {"glorot_uniform": tf.keras.initializers.GlorotUniform, "he_uniform": tf.keras.initializers.HeUniform}
        return kinds[self.initialiser](seed)

    def dense(self, units: int, name: str, **kwargs: Any) -> tf.keras.layers.Dense:
        """A dense layer."""
        return tf.keras.layers.Dense(units, kernel_initializer=self.start(name), name=name, **kwargs)

    def convolution(self, filters: int, name: str, stride: int = 1, kernel: int | None = None) -> tf.keras.layers.Conv2D:
        """A convolution with 'same' padding."""
        return tf.keras.layers.Conv2D(
            filters, kernel or self.kernel, stride, "same", kernel_initializer=self.start(name), name=name
        )

    def transposed(self, filters: int, name: str, stride: int) -> tf.keras.layers.Conv2DTranspose:
        """A transposed convolution that enlarges by its stride."""
        return tf.keras.layers.Conv2DTranspose(
            filters, self.kernel, stride, "same", kernel_initializer=self.start(name), name=name
        )

    def activate(self, x: tf.Tensor) -> tf.Tensor:
        """The activation."""
        return tf.nn.relu(x) if self.activation == "relu" else tf.nn.leaky_relu(x, SLOPE)

    def batch_norm(self, name: str) -> BatchNormalization | None:
        """A batch norm, where there is any."""
        return BatchNormalization(name=name) if self.norm else None


def start_side(size: int) -> int:
    """Side of the map that `DOUBLINGS` doublings make `size` of.

    Raises:
        ValueError: there is none.
    """
    if size < 2**DOUBLINGS or size % 2**DOUBLINGS:
        raise ValueError(f"image_size = {size}: must be a multiple of {2**DOUBLINGS}, such as 32, 48, 64, 80 or 128")
    return size // 2**DOUBLINGS


def _normed(norm: BatchNormalization | None, x: tf.Tensor, training: bool) -> tf.Tensor:
    return x if norm is None else norm(x, training=training)


class TransposedGenerator(tf.keras.Model):
    """Dense, then transposed convolutions, then tanh: the generators of DCGAN, LSGAN and AC-GAN.

    Args:
        size, channels: of the images.
        start_filters: channels of the start map.
        filters: of each doubling's transposed convolution; with AC-GAN's layout the last one makes the image, and is left out here.
        paired: each doubling is followed by a transposed convolution of stride 1 as wide (LSGAN).
        final_convolution: the image comes from a 3×3 convolution; else from the last doubling itself.
        parts: how layers are made.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        start_filters: int,
        filters: tuple[int, ...],
        parts: Parts,
        *,
        paired: bool = False,
        final_convolution: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.side, self.start_filters, self.parts = start_side(size), start_filters, parts
        self.project = parts.dense(self.side**2 * start_filters, "project")
        strides = [stride for _ in filters for stride in ((2, 1) if paired else (2,))]
        widths = [width for width in filters for _ in range(2 if paired else 1)]
        self.first_norm = parts.batch_norm("norm_0")
        self.hidden = [
            parts.transposed(width, f"transposed_{place}", stride) for place, (width, stride) in enumerate(zip(widths, strides))
        ]
        self.norms = [parts.batch_norm(f"norm_{place + 1}") for place in range(len(self.hidden))]
        self.image = (
            parts.convolution(channels, "image", kernel=3) if final_convolution else parts.transposed(channels, "image", 2)
        )

    def call(self, latent: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, N] → float32 [B, S, S, C] in [-1, 1]."""
        x = tf.reshape(self.project(latent), [-1, self.side, self.side, self.start_filters])
        x = self.parts.activate(_normed(self.first_norm, x, training))
        for layer, norm in zip(self.hidden, self.norms):
            x = self.parts.activate(_normed(norm, layer(x), training))
        return tf.tanh(tf.cast(self.image(x), tf.float32))


class StridedDiscriminator(tf.keras.Model):
    """Strided convolutions, flattened to one score: the discriminators of DCGAN and LSGAN.

    Args:
        filters: of each convolution.
        parts: how layers are made; a norm stands after all but the first.
    """

    def __init__(self, filters: tuple[int, ...], parts: Parts, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts = parts
        self.convolutions = [parts.convolution(width, f"conv_{place}", 2) for place, width in enumerate(filters)]
        self.norms = [parts.batch_norm(f"norm_{place}") if place else None for place in range(len(filters))]
        self.score = parts.dense(1, "score", dtype=tf.float32)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, S, S, C] → float32 [B]."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms):
            x = self.parts.activate(_normed(norm, convolution(x), training))
        return self.score(_flat(x))[:, 0]


class ResidualGenerator(tf.keras.Model):
    """Residual blocks that double the size (WGAN-GP): norm, activation, enlarge, 3×3, norm, activation, 3×3, and a 1×1 shortcut.

    Args:
        size, channels: of the images.
        start_filters: channels of the start map.
        filters: of each block.
        parts: how layers are made.
    """

    def __init__(self, size: int, channels: int, start_filters: int, filters: tuple[int, ...], parts: Parts, **kwargs: Any):
        super().__init__(**kwargs)
        self.side, self.start_filters, self.parts = start_side(size), start_filters, parts
        self.project = parts.dense(self.side**2 * start_filters, "project")
        self.first = [parts.convolution(width, f"block_{place}/first") for place, width in enumerate(filters)]
        self.second = [parts.convolution(width, f"block_{place}/second") for place, width in enumerate(filters)]
        self.shortcuts = [parts.convolution(width, f"block_{place}/shortcut", kernel=1) for place, width in enumerate(filters)]
        self.norms = [parts.batch_norm(f"norm_{place}") for place in range(2 * len(filters) + 1)]
        self.image = parts.convolution(channels, "image", kernel=3)

    def call(self, latent: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, N] → float32 [B, S, S, C] in [-1, 1]."""
        x = tf.reshape(self.project(latent), [-1, self.side, self.side, self.start_filters])
        for place, (first, second, shortcut) in enumerate(zip(self.first, self.second, self.shortcuts)):
            y = self.parts.activate(_normed(self.norms[2 * place], x, training))
            y = first(_enlarged(y))
            y = second(self.parts.activate(_normed(self.norms[2 * place + 1], y, training)))
            x = y + shortcut(_enlarged(x))
        x = self.parts.activate(_normed(self.norms[-1], x, training))
        return tf.tanh(tf.cast(self.image(x), tf.float32))


class ResidualCritic(tf.keras.Model):
    """Residual blocks that halve the size by mean pooling, without norms (WGAN-GP): a norm over the batch would tie an image's gradient
    penalty to the others.

    Args:
        first_filters: of the convolution before the blocks.
        filters: of each block.
        parts: how layers are made.
    """

    def __init__(self, first_filters: int, filters: tuple[int, ...], parts: Parts, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts = parts
        self.entry = parts.convolution(first_filters, "entry")
        self.first = [parts.convolution(width, f"block_{place}/first") for place, width in enumerate(filters)]
        self.second = [parts.convolution(width, f"block_{place}/second") for place, width in enumerate(filters)]
        self.shortcuts = [parts.convolution(width, f"block_{place}/shortcut", kernel=1) for place, width in enumerate(filters)]
        self.score = parts.dense(1, "score", dtype=tf.float32)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, S, S, C] → float32 [B]; there is nothing that behaves differently in training."""
        x = self.entry(images)
        for first, second, shortcut in zip(self.first, self.second, self.shortcuts):
            y = first(self.parts.activate(x))
            y = second(self.parts.activate(y))
            x = _halved(y) + shortcut(_halved(x))
        return self.score(_flat(x))[:, 0]


class AuxiliaryDiscriminator(tf.keras.Model):
    """Convolutions of stride 2 and 1 in turn with dropout, then two heads: is it real, and which class is it (AC-GAN).

    Args:
        size: side of the images.
        classes: of the second head.
        filters: of each convolution.
        parts: how layers are made; a norm stands after all but the first.
    """

    def __init__(self, size: int, classes: int, filters: tuple[int, ...], parts: Parts, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts = parts
        sides = [-(-size // 2 ** (place // 2 + 1)) for place in range(len(filters))]
        self.activations = [side * side * width for side, width in zip(sides, filters)]
        self.convolutions = [parts.convolution(width, f"conv_{place}", 2 - place % 2) for place, width in enumerate(filters)]
        self.norms = [parts.batch_norm(f"norm_{place}") if place else None for place in range(len(filters))]
        self.source = parts.dense(1, "source", dtype=tf.float32)
        self.classifier = parts.dense(classes, "class", dtype=tf.float32)

    def call(self, images: tf.Tensor, training: bool = False, dropout: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, S, S, C] → logit that it is real [B], logits of classes [B, K], float32.

        Args:
            images: what to judge.
            training: of the norms.
            dropout: uniform numbers, float32 [B, sum of `activations`], by which half of all activations are dropped; None: none.
        """
        x = images
        numbers = [None] * len(self.activations) if dropout is None else tf.split(dropout, self.activations, -1)
        for convolution, norm, uniform in zip(self.convolutions, self.norms, numbers):
            x = self.parts.activate(_normed(norm, convolution(x), training))
            if uniform is not None:
                kept = tf.cast(tf.reshape(uniform, [-1, *x.shape[1:]]) >= _DROPOUT, x.dtype)
                x = x * kept / (1.0 - _DROPOUT)
        x = _flat(x)
        return self.source(x)[:, 0], self.classifier(x)


def _enlarged(x: tf.Tensor) -> tf.Tensor:
    """Each pixel twice in both directions: by repetition, of which XLA knows the gradient."""
    return tf.repeat(tf.repeat(x, 2, 1), 2, 2)


def _halved(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
