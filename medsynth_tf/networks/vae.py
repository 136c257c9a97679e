"""Encoders, decoders and metric networks of variational autoencoders for small sets of images: dense and convolutional ones."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed, torch_uniform

Initialiser = Literal["torch", "glorot"]


class VAENetworks(NamedTuple):
    """What a variational autoencoder is made of; any Keras models with these calls will do.

    Attributes:
        encoder: images [B, H, W, C] in [0, 1] → (mean, log-variance), each [B, D].
        decoder: latent vectors [B, D] → logits [B, H, W, C].
        metric: images → lower triangular factors [B, D, D] with a positive diagonal; None without a metric.
    """

    encoder: tf.keras.Model
    decoder: tf.keras.Model
    metric: tf.keras.Model | None


def _options(kind: Initialiser, fan_in: int, seed: int, name: str) -> dict[str, Any]:
    """Initialisers of one layer, an object for each of its two weights."""
    if kind == "glorot":
        return {"kernel_initializer": tf.keras.initializers.GlorotUniform(layer_seed(seed, name)), "name": name}
    return {
        "kernel_initializer": torch_uniform(fan_in, seed, f"{name} kernel"),
        "bias_initializer": torch_uniform(fan_in, seed, f"{name} bias"),
        "name": name,
    }


class _Heads(tf.keras.layers.Layer):
    """Mean and log-variance, float32, of features [B, F]."""

    def __init__(self, latent: int, features: int, initialiser: Initialiser, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.mean, self.log_variance = (
            tf.keras.layers.Dense(latent, dtype=tf.float32, **_options(initialiser, features, seed, name))
            for name in ("mean", "log_variance")
        )

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.cast(features, tf.float32)
        return self.mean(features), self.log_variance(features)


class DenseEncoder(tf.keras.Model):
    """Dense ReLU, then two heads.

    Args:
        shape: (H, W, C) of the images.
        latent: D.
        hidden: units.
        initialiser: 'torch' (uniform by fan-in, biases too) or 'glorot'.
        seed: of all weights.
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: int, hidden: int, initialiser: Initialiser, seed: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.hidden = tf.keras.layers.Dense(
            hidden, activation="relu", **_options(initialiser, math.prod(shape), seed, "hidden")
        )
        self.heads = _Heads(latent, hidden, initialiser, seed, name="heads")
        self(tf.keras.Input(shape))

    def call(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images [B, H, W, C] in [0, 1] → (mean, log-variance), each float32 [B, D]."""
        return self.heads(self.hidden(_flat(images)))


class DenseDecoder(tf.keras.Model):
    """Dense ReLU, then a logit a pixel. Arguments as of `DenseEncoder`."""

    def __init__(
        self, shape: tuple[int, int, int], latent: int, hidden: int, initialiser: Initialiser, seed: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.image_shape = shape
        self.hidden = tf.keras.layers.Dense(hidden, activation="relu", **_options(initialiser, latent, seed, "hidden"))
        self.logits = tf.keras.layers.Dense(math.prod(shape), dtype=tf.float32, **_options(initialiser, hidden, seed, "logits"))
        self(tf.keras.Input([latent]))

    def call(self, latent: tf.Tensor) -> tf.Tensor:
        """Latent vectors [B, D] → logits float32 [B, H, W, C]."""
        logits = self.logits(tf.cast(self.hidden(latent), tf.float32))
        return tf.reshape(logits, [-1, *self.image_shape])


class ConvolutionalEncoder(tf.keras.Model):
    """Convolutions 3×3 of stride 2 with ReLU, a dense layer, two heads.

    Args:
        shape: (H, W, C); H and W are multiples of 2 to the number of convolutions.
        latent: D.
        filters: of each convolution.
        dense: units of the dense layer.
        initialiser, seed: as for `DenseEncoder`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        filters: tuple[int, ...],
        dense: int,
        initialiser: Initialiser,
        seed: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        inputs = (shape[-1], *filters[:-1])
        self.convolutions = [
            tf.keras.layers.Conv2D(
                width, 3, 2, "same", activation="relu", **_options(initialiser, 9 * before, seed, f"conv_{i}")
            )
            for i, (before, width) in enumerate(zip(inputs, filters))
        ]
        features = math.prod(_start(shape, filters)) * filters[-1]
        self.dense = tf.keras.layers.Dense(dense, activation="relu", **_options(initialiser, features, seed, "dense"))
        self.heads = _Heads(latent, dense, initialiser, seed, name="heads")
        self(tf.keras.Input(shape))

    def call(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `DenseEncoder`."""
        x = images
        for convolution in self.convolutions:
            x = convolution(x)
        return self.heads(self.dense(_flat(x)))


class ConvolutionalDecoder(tf.keras.Model):
    """The encoder's mirror image, of transposed convolutions. Arguments as of `ConvolutionalEncoder`."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        filters: tuple[int, ...],
        dense: int,
        initialiser: Initialiser,
        seed: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.start = (*_start(shape, filters), filters[-1])
        self.dense = tf.keras.layers.Dense(dense, activation="relu", **_options(initialiser, latent, seed, "dense"))
        self.spread = tf.keras.layers.Dense(
            math.prod(self.start), activation="relu", **_options(initialiser, dense, seed, "spread")
        )
        outputs = (*filters[-2::-1], shape[-1])
        last = len(outputs) - 1
        self.convolutions = [
            tf.keras.layers.Conv2DTranspose(
                width,
                3,
                2,
                "same",
                activation=None if i == last else "relu",
                **_options(initialiser, 9 * width, seed, f"conv_{i}"),
            )
            for i, width in enumerate(outputs)
        ]
        self(tf.keras.Input([latent]))

    def call(self, latent: tf.Tensor) -> tf.Tensor:
        """As `DenseDecoder`."""
        x = tf.reshape(self.spread(self.dense(latent)), [-1, *self.start])
        for convolution in self.convolutions:
            x = convolution(x)
        return tf.cast(x, tf.float32)


class MetricFactor(tf.keras.Model):
    """L(x), lower triangular with a positive diagonal, of a Dense ReLU layer: L Lᵀ is the matrix of image x in the metric.

    Args:
        shape: (H, W, C) of the images.
        latent: D.
        hidden: units.
        pooling: images are averaged over squares of this side first.
        initialiser, seed: as for `DenseEncoder`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        hidden: int,
        pooling: int,
        initialiser: Initialiser,
        seed: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.latent, self.pooling = latent, pooling
        inputs = shape[0] // pooling * (shape[1] // pooling) * shape[2]
        self.hidden = tf.keras.layers.Dense(hidden, activation="relu", **_options(initialiser, inputs, seed, "hidden"))
        self.log_diagonal = tf.keras.layers.Dense(
            latent, dtype=tf.float32, **_options(initialiser, hidden, seed, "log_diagonal")
        )
        below = latent * (latent - 1) // 2
        self.below: tf.keras.layers.Layer | None = None  # one dimension has nothing below the diagonal
        if below:
            self.below = tf.keras.layers.Dense(below, dtype=tf.float32, **_options(initialiser, hidden, seed, "below"))
        self(tf.keras.Input(shape))

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] in [0, 1] → L float32 [B, D, D]."""
        if self.pooling > 1:
            images = tf.nn.avg_pool2d(images, self.pooling, self.pooling, "VALID")
        features = tf.cast(self.hidden(_flat(images)), tf.float32)
        factor = tf.linalg.diag(tf.exp(self.log_diagonal(features)))
        if self.below is None:
            return factor
        rows = [(i, j) for i in range(1, self.latent) for j in range(i)]
        place = tf.one_hot([i * self.latent + j for i, j in rows], self.latent**2)
        strict = tf.matmul(self.below(features), place)
        return factor + tf.reshape(strict, [-1, self.latent, self.latent])


def _start(shape: tuple[int, int, int], filters: tuple[int, ...]) -> tuple[int, int]:
    """Size of the coarsest map."""
    divisor = 2 ** len(filters)
    return shape[0] // divisor, shape[1] // divisor


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, math.prod(x.shape[1:])])
