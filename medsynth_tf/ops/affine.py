"""Turning, moving and scaling batches of images, and the points in them."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def quarter_turns(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Square images [B, S, S, C], each turned counter-clockwise by 90° as often as `turns`, int32 [B] in 0 … 3, says; exact."""
    turns = turns[:, tf.newaxis, tf.newaxis, tf.newaxis]
    images = tf.where(turns % 2 == 1, tf.transpose(images, [0, 2, 1, 3]), images)
    images = tf.where((turns == 1) | (turns == 2), tf.reverse(images, [1]), images)
    return tf.where(turns >= 2, tf.reverse(images, [2]), images)


def affine(
    images: tf.Tensor, angle: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor, fill: Sequence[float] | float = 0.0
) -> tf.Tensor:
    """Images turned and scaled about their centre, then shifted; bilinear, one operation for the whole batch.

    Args:
        images: float32 [B, H, W, C].
        angle: radians [B].
        shift: [B, 2] down and right, in sides.
        scale: [B]; above 1 enlarges.
        fill: value of each channel outside an image, [C] or one number.

    Returns:
        The same shape. Where the image holds one-hot planes and `fill` sums to 1, so does each pixel of the result.
    """
    height, width = images.shape[1], images.shape[2]
    middle = tf.constant([(height - 1) / 2, (width - 1) / 2], tf.float32)
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    # from a place in the result to the place in the image: x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2
    row = middle[0] + shift[:, 0] * height
    column = middle[1] + shift[:, 1] * width
    zeros = tf.zeros_like(angle)
    transforms = tf.stack(
        [
            cosine,
            -sine,
            middle[1] - cosine * column + sine * row,
            sine,
            cosine,
            middle[0] - sine * column - cosine * row,
            zeros,
            zeros,
        ],
        axis=-1,
    )
    outside = tf.constant(fill, images.dtype)
    # the operation fills with one number: with the differences from `fill` that number is 0 in every channel
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images - outside,
        transforms=transforms,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return moved + outside


def affine_points(points: tf.Tensor, size: tuple[int, int], angle: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Where `affine` takes points of the images; exact.

    Args:
        points: float32 [B, P, 2], (row, column) in index coordinates; NaN stays NaN.
        size: height and width of the images.
        angle, shift, scale: as for `affine`.

    Returns:
        float32 [B, P, 2]; they may lie outside the image.
    """
    middle = tf.constant([(size[0] - 1) / 2, (size[1] - 1) / 2], tf.float32)
    row, column = tf.unstack(points - middle, axis=-1)
    cosine, sine = (scale * tf.cos(angle))[:, tf.newaxis], (scale * tf.sin(angle))[:, tf.newaxis]
    moved = tf.stack([cosine * row - sine * column, sine * row + cosine * column], -1)
    return moved + middle + (shift * tf.constant(size, tf.float32))[:, tf.newaxis]
