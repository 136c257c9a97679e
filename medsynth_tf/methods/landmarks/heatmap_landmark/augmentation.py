"""Random changes of training images; whatever moves the image moves its points, exactly."""

from __future__ import annotations

import math

import tensorflow as tf

from medsynth_tf.core.config import DataConfig
from medsynth_tf.methods.landmarks.heatmap_landmark.config import AugmentationConfig
from medsynth_tf.ops import random
from medsynth_tf.ops.affine import affine, affine_points


def augment(
    images: tf.Tensor, points: tf.Tensor, seeds: tf.Tensor, config: AugmentationConfig, data: DataConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turned and shifted over black, mirrored, recoloured.

    Heatmaps are drawn from the moved points: the same as moving the heatmap, since the Gaussians are round, without interpolation.

    Args:
        images: float32 [B, H, W, 3] in [0, 1].
        points: float32 [B, P, 2], NaN in rows that are none.
        seeds: int64 [B]; the same seed gives the same change.
        config: how much.
        data: which mirrors.

    Returns:
        Images and points of the same shapes; points that left their image are NaN.
    """
    height, width = images.shape[1], images.shape[2]
    draws = random.uniform(seeds, (6,), "geometry")
    turned = draws[:, 0] < config.rotation_probability
    angle = tf.where(turned, math.radians(config.rotation) * (2.0 * draws[:, 1] - 1.0), 0.0)
    shift = config.shift * (2.0 * draws[:, 2:4] - 1.0)
    if config.rotation > 0.0 or config.shift > 0.0:
        scale = tf.ones_like(angle)
        images = affine(images, angle, shift, scale)
        points = affine_points(points, (height, width), angle, shift, scale)
    images, points = mirror(images, points, (draws[:, 4] < 0.5) & data.flip_horizontal, axis=1)
    images, points = mirror(images, points, (draws[:, 5] < 0.5) & data.flip_vertical, axis=0)
    inside = (points > -0.5) & (points < tf.constant([height, width], tf.float32) - 0.5)
    points = tf.where(tf.reduce_all(inside, -1, keepdims=True), points, float("nan"))
    return recolour(images, seeds, config), points


def mirror(images: tf.Tensor, points: tf.Tensor, chosen: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The chosen ones, bool [B], mirrored along rows (axis 0) or columns (1)."""
    length = images.shape[axis + 1]
    mirrored = length - 1.0 - points[..., axis]
    moved = tf.stack([mirrored, points[..., 1]] if axis == 0 else [points[..., 0], mirrored], -1)
    images = tf.where(chosen[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, [axis + 1]), images)
    return images, tf.where(chosen[:, tf.newaxis, tf.newaxis], moved, points)


def recolour(images: tf.Tensor, seeds: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Jitter of brightness, contrast, saturation and hue, then a further change of brightness and contrast, each with its
    probability; float32 [B, H, W, 3] in [0, 1]."""
    draws = random.uniform(seeds, (8,), "colour")

    def factor(column: int, reach: float, probability: float, gate: int) -> tf.Tensor:
        value = reach * (2.0 * draws[:, column] - 1.0)
        return tf.where(draws[:, gate] < probability, value, 0.0)[:, tf.newaxis, tf.newaxis, tf.newaxis]

    def around(images: tf.Tensor, centre: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(centre + (images - centre) * (1.0 + change), 0.0, 1.0)

    def mean_grey(images: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.image.rgb_to_grayscale(images), [1, 2], keepdims=True)

    if config.colour > 0.0 and config.colour_probability > 0.0:
        brightness, contrast, saturation, hue = (factor(i, config.colour, config.colour_probability, 6) for i in range(4))
        images = around(images, tf.zeros_like(brightness), brightness)
        images = around(images, mean_grey(images), contrast)
        images = around(images, tf.image.rgb_to_grayscale(images), saturation)
        hsv = tf.image.rgb_to_hsv(images)
        turned = tf.math.floormod(hsv[..., :1] + hue, 1.0)
        images = tf.image.hsv_to_rgb(tf.concat([turned, hsv[..., 1:]], -1))
    if config.brightness > 0.0 and config.brightness_probability > 0.0:
        brightness, contrast = (factor(i, config.brightness, config.brightness_probability, 7) for i in (4, 5))
        images = tf.clip_by_value(images * (1.0 + contrast) + brightness, 0.0, 1.0)
    return images
