"""Augmentation on the fly of planes and cubes: one geometric transform for image and labels, then intensities."""

from __future__ import annotations

import math

import tensorflow as tf

from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.methods.segmentation.multiplanar_unet.config import AugmentationConfig
from medsynth_tf.methods.segmentation.multiplanar_unet.planes import UNKNOWN
from medsynth_tf.ops.resampling import sample_linear, sample_nearest


def augment(
    image: tf.Tensor, label: tf.Tensor, fill: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig, flips: tuple[bool, ...]
) -> tuple[tf.Tensor, tf.Tensor]:
    """One example, changed at random.

    Args:
        image: float32 [S, S] or [S, S, S].
        label: uint8 codes of that shape; brought in from outside they are UNKNOWN.
        fill: what the image shows there, float32 scalar.
        seed: int64 scalar; the same seed gives the same example.
        config: kinds and ranges.
        flips: which axes may be mirrored.
    """
    shape = image.shape
    matrix = _transform(seed, config, flips)
    steps = tf.stack(tf.meshgrid(*(tf.range(side, dtype=tf.float64) for side in shape), indexing="ij"), -1)
    middle = (tf.cast(tf.shape(image), tf.float64) - 1.0) / 2.0
    coordinates = tf.unstack(tf.linalg.matvec(matrix, steps - middle) + middle, axis=-1)
    moved = tf.ensure_shape(sample_linear(image, coordinates, fill), shape)
    codes = tf.ensure_shape(sample_nearest(label, coordinates, UNKNOWN), shape)
    return _intensities(moved, seed, config), codes


def _uniform(seed: tf.Tensor, name: str, low: float = 0.0, high: float = 1.0, count: int | None = None) -> tf.Tensor:
    key = tf.stack([seed, tf.constant(derive_seed(0, "multiplanar_unet/augmentation", name), tf.int64)])
    return tf.random.stateless_uniform([] if count is None else [count], key, low, high, tf.float64)


def _chosen(seed: tf.Tensor, name: str, config: AugmentationConfig) -> tf.Tensor:
    return _uniform(seed, f"whether {name}") < config.probability


def _transform(seed: tf.Tensor, config: AugmentationConfig, flips: tuple[bool, ...]) -> tf.Tensor:
    """From the new example's coordinates to the old one's, around the middle, float64 [N, N]."""
    dimensions = len(flips)
    angle = _uniform(seed, "rotation", -config.rotation, config.rotation) * math.pi / 180.0
    angle = tf.where(_chosen(seed, "rotation", config), angle, 0.0)
    if dimensions == 2:
        cosine, sine = tf.cos(angle), tf.sin(angle)
        rotation = tf.stack([tf.stack([cosine, -sine]), tf.stack([sine, cosine])])
    else:
        key = tf.stack([seed, tf.constant(derive_seed(0, "multiplanar_unet/augmentation", "axis"), tf.int64)])
        axis = tf.math.l2_normalize(tf.random.stateless_normal([3], key, dtype=tf.float64))
        turn = tf.linalg.cross(tf.broadcast_to(axis, [3, 3]), tf.eye(3, dtype=tf.float64))  # rows: axis × e_i
        rotation = tf.linalg.expm(angle * tf.transpose(turn))
    scale = tf.where(_chosen(seed, "scale", config), _uniform(seed, "scale", *config.scale), 1.0)
    mirrored = [_chosen(seed, f"flip {axis}", config) if flip else tf.constant(False) for axis, flip in enumerate(flips)]
    signs = tf.where(tf.stack(mirrored), tf.constant(-1.0, tf.float64), 1.0)
    return rotation * signs / scale


def _intensities(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    def number(name: str, low: float, high: float, neutral: float) -> tf.Tensor:
        drawn = tf.where(_chosen(seed, name, config), _uniform(seed, name, low, high), neutral)
        return tf.cast(drawn, tf.float32)

    deviation, mean = tf.math.reduce_std(image), tf.reduce_mean(image)
    image = (image - mean) * number("contrast", *config.contrast, 1.0) + mean
    image += number("brightness", -config.brightness, config.brightness, 0.0) * deviation
    low, high = tf.reduce_min(image), tf.reduce_max(image)
    share = tf.math.divide_no_nan(image - low, high - low)
    image = low + (high - low) * share ** number("gamma", *config.gamma, 1.0)
    key = tf.stack([seed, tf.constant(derive_seed(0, "multiplanar_unet/augmentation", "noise field"), tf.int64)])
    noise = tf.random.stateless_normal(image.shape, key)
    return image + number("noise", 0.0, config.noise, 0.0) * deviation * noise
