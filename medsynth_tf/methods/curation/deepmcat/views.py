"""From images to what the network sees: random or middle views, z-scores, derivatives."""

from __future__ import annotations

import math

import tensorflow as tf

from medsynth_tf.core.config import DataConfig
from medsynth_tf.data.transforms import resize_images
from medsynth_tf.methods.curation.deepmcat.config import AugmentationConfig
from medsynth_tf.ops.crops import centre_crops, crop_boxes, rotated_crops
from medsynth_tf.ops.random import uniform

_FLAT = 1e-6
"""A deviation below this share of the largest value is rounding."""
_GREY = (0.2989, 0.587, 0.114)


def loaded(images: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """The middle squares of images, scaled.

    Args:
        images: any numbers [B, H, W, 1 or 3].
        size: L.
        channels: 1 or 3; grey images are repeated, coloured ones made grey.

    Returns:
        float32 [B, L, L, channels], in the images' units.
    """
    images = tf.cast(images, tf.float32)
    if images.shape[-1] == 3 and channels == 1:
        images = tf.reduce_sum(images * _GREY, -1, keepdims=True)
    shape = tf.shape(images)
    side = tf.minimum(shape[1], shape[2])
    top, left = (shape[1] - side) // 2, (shape[2] - side) // 2
    squares = images[:, top : top + side, left : left + side]
    scaled = resize_images(squares, (size, size))
    return tf.repeat(scaled, channels // scaled.shape[-1], -1)


def random_views(images: tf.Tensor, seeds: tf.Tensor, size: int, config: AugmentationConfig, data: DataConfig) -> tf.Tensor:
    """Turned, cropped, scaled and perhaps mirrored at random, in one resampling.

    Args:
        images: float32 [B, L, L, C].
        seeds: int64 [B].
        size: S.
        config, data: ranges, and which mirrors there are.

    Returns:
        float32 [B, S, S, C].
    """
    centres, sides = crop_boxes(seeds, config.area, config.aspect, images.shape[1], images.shape[2])
    numbers = uniform(seeds, (3,), "view")
    angle = (2.0 * numbers[:, 0] - 1.0) * config.rotation * math.pi / 180.0
    mirrored = (numbers[:, 1:] < 0.5) & tf.constant([data.flip_vertical, data.flip_horizontal])
    return rotated_crops(images, size, centres, sides, angle, mirrored)


def middle_views(images: tf.Tensor, size: int) -> tf.Tensor:
    """The middle S×S pixels of images [B, L, L, C]."""
    return centre_crops(images, size)


def z_scores(views: tf.Tensor) -> tf.Tensor:
    """(x - mean) / deviation over all values of each view, float32 [B, H, W, C]; a constant view becomes 0."""
    mean = tf.reduce_mean(views, [1, 2, 3], keepdims=True)
    centred = views - mean
    deviation = tf.sqrt(tf.reduce_mean(centred**2, [1, 2, 3], keepdims=True))
    flat = deviation <= _FLAT * tf.reduce_max(tf.abs(views), [1, 2, 3], keepdims=True)
    return tf.where(flat, 0.0, centred / tf.where(flat, 1.0, deviation))


def sobel(views: tf.Tensor) -> tf.Tensor:
    """Derivatives across and down of the mean over channels, float32 [B, H, W, 2]; 0 around the image (DeepCluster's)."""
    grey = tf.reduce_mean(views, -1, keepdims=True)
    across = tf.constant([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = tf.stack([across, tf.transpose(across)], -1)[:, :, tf.newaxis]
    return tf.nn.conv2d(grey, kernels, 1, "SAME")
