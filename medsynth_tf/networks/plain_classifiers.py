"""Classifiers of the kind that small augmentation studies train from scratch: one dense layer, three convolutions, DenseNet-BC."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization


def dense_classifier(shape: tuple[int, int, int], classes: int, seed: int = 0, hidden: int = 400) -> tf.keras.Model:
    """Dense ReLU and a head: images [B, H, W, C] → logits [B, K]."""
    image = tf.keras.Input(shape)
    x = tf.keras.layers.Dense(hidden, activation="relu", **_glorot(seed, "hidden"))(tf.keras.layers.Flatten()(image))
    return tf.keras.Model(image, _head(x, classes, seed), name="mlp")


def convolutional_classifier(
    shape: tuple[int, int, int], classes: int, seed: int = 0, filters: tuple[int, ...] = (16, 32, 64)
) -> tf.keras.Model:
    """Times [Conv3×3, BatchNorm, ReLU, max-pool 2] and a dense head: images [B, H, W, C] → logits [B, K]."""
    image = x = tf.keras.Input(shape)
    for i, width in enumerate(filters):
        x = tf.keras.layers.Conv2D(width, 3, padding="same", use_bias=False, **_he(seed, f"conv_{i}"))(x)
        x = tf.keras.layers.ReLU()(BatchNormalization(name=f"norm_{i}")(x))
        x = tf.keras.layers.MaxPool2D(2, padding="same")(x)
    return tf.keras.Model(image, _head(tf.keras.layers.Flatten()(x), classes, seed), name="cnn")


def densenet_bc(
    shape: tuple[int, int, int],
    classes: int,
    seed: int = 0,
    growth: int = 12,
    depth: int = 40,
    reduction: float = 0.5,
) -> tf.keras.Model:
    """DenseNet-BC for small images: three dense blocks of bottleneck layers (Huang et al., arXiv:1608.06993, sections 3 and 4.2).

    Args:
        shape: (H, W, C).
        classes: K.
        seed: of all kernels.
        growth: maps that each layer adds.
        depth: layers in all; (depth - 4) is a multiple of 6.
        reduction: share of the maps that a transition keeps.

    Returns:
        Images [B, H, W, C] → logits [B, K].

    Raises:
        ValueError: no such depth.
    """
    per_block, rest = divmod(depth - 4, 6)
    if rest or per_block < 1:
        raise ValueError(f"depth = {depth}: must be 4 + 6 n, such as 40 or 100")
    image = tf.keras.Input(shape)
    width = 2 * growth
    x = tf.keras.layers.Conv2D(width, 3, padding="same", use_bias=False, **_he(seed, "start"))(image)

    def convolved(x: tf.Tensor, width: int, kernel: int, name: str) -> tf.Tensor:
        x = tf.keras.layers.ReLU()(BatchNormalization(name=f"{name}_norm")(x))
        return tf.keras.layers.Conv2D(width, kernel, padding="same", use_bias=False, **_he(seed, name))(x)

    for block in range(3):
        for layer in range(per_block):
            name = f"block_{block}_{layer}"
            new = convolved(convolved(x, 4 * growth, 1, f"{name}_a"), growth, 3, f"{name}_b")
            x = tf.keras.layers.Concatenate()([x, new])
            width += growth
        if block < 2:
            width = int(width * reduction)
            x = tf.keras.layers.AveragePooling2D(2, padding="same")(convolved(x, width, 1, f"transition_{block}"))
    x = tf.keras.layers.ReLU()(BatchNormalization(name="end_norm")(x))
    return tf.keras.Model(image, _head(tf.keras.layers.GlobalAveragePooling2D()(x), classes, seed), name="densenet")


PLAIN_CLASSIFIERS: dict[str, Callable[..., tf.keras.Model]] = {
    "mlp": dense_classifier,
    "cnn": convolutional_classifier,
    "densenet": densenet_bc,
}


def _glorot(seed: int, name: str) -> dict:
    return {"kernel_initializer": tf.keras.initializers.GlorotUniform(layer_seed(seed, name)), "name": name}


def _he(seed: int, name: str) -> dict:
    return {"kernel_initializer": tf.keras.initializers.HeNormal(layer_seed(seed, name)), "name": name}


def _head(x: tf.Tensor, classes: int, seed: int) -> tf.Tensor:
    return tf.keras.layers.Dense(classes, dtype=tf.float32, **_glorot(seed, "head"))(x)
