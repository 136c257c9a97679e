"""Random rotated crops of batches of images, in one resampling."""

from __future__ import annotations

import math

import tensorflow as tf

from medsynth_tf.ops.random import uniform

TRIES = 10
"""Boxes that are drawn for a crop; the first that fits into the image is taken."""


def crop_boxes(
    seed: tf.Tensor, area: tuple[float, float], aspect: tuple[float, float], height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Random boxes of a share of an image's area: their centres and sides, both float32 [B, 2], (down, right), in pixels.

    The share is uniform in `area`, width over height log-uniform in `aspect`, and the place uniform among those inside. Of ten
    tries the first that fits counts; where none does, the whole image, cut to the nearest allowed aspect.

    Args:
        seed: int64 [B]; the same seed gives the same box.
        area, aspect: smallest and largest.
        height, width: of the images.
    """
    low, high = (math.log(value) for value in aspect)
    numbers = uniform(seed, (2 * TRIES + 2,), "crop box")
    shares = area[0] + (area[1] - area[0]) * numbers[:, :TRIES]
    aspects = tf.exp(low + (high - low) * numbers[:, TRIES : 2 * TRIES])
    widths = tf.sqrt(shares * aspects * (height * width))
    heights = tf.sqrt(shares / aspects * (height * width))
    fits = (widths <= width) & (heights <= height)
    whole = min(max(width / height, aspect[0]), aspect[1])
    fallback = tf.constant([min(height, width / whole), min(width, height * whole)], tf.float32)
    first = tf.argmax(fits, axis=1, output_type=tf.int32)
    found = tf.stack([tf.gather(side, first, batch_dims=1) for side in (heights, widths)], -1)
    sides = tf.where(tf.reduce_any(fits, 1, keepdims=True), found, fallback)
    limits = tf.constant([height, width], tf.float32)
    centres = sides / 2.0 + (limits - sides) * numbers[:, 2 * TRIES :] - 0.5
    return centres, sides


def rotated_crops(
    images: tf.Tensor,
    size: int,
    centres: tf.Tensor,
    sides: tf.Tensor,
    angle: tf.Tensor,
    mirrored: tf.Tensor,
) -> tf.Tensor:
    """Images turned about their centre, then cut to boxes, then scaled to squares: bilinear, once for all three.

    What turning brings in from outside is the image mirrored at its edge.

    Args:
        images: float32 [B, H, W, C].
        size: S, side of the results.
        centres, sides: of the boxes in the turned image, float32 [B, 2], as `crop_boxes` gives them.
        angle: radians [B], counter-clockwise.
        mirrored: bool [B, 2]: whether the crop is mirrored up-down and left-right.

    Returns:
        float32 [B, S, S, C].
    """
    height, width = images.shape[1], images.shape[2]
    middle = tf.constant([(height - 1) / 2, (width - 1) / 2], tf.float32)
    step = tf.where(mirrored, -sides, sides) / size  # of one result pixel, in the turned image
    start = centres - step * (size - 1) / 2 - middle  # first result pixel, from the centre
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # row = start_r + step_r y, column = start_c + step_c x in the turned image; turned back into the image:
    # column' = cos·column - sin·row, row' = sin·column + cos·row
    transforms = tf.stack(
        [
            cosine * step[:, 1],
            -sine * step[:, 0],
            cosine * start[:, 1] - sine * start[:, 0] + middle[1],
            sine * step[:, 1],
            cosine * step[:, 0],
            sine * start[:, 1] + cosine * start[:, 0] + middle[0],
            tf.zeros_like(angle),
            tf.zeros_like(angle),
        ],
        axis=-1,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def centre_crops(images: tf.Tensor, size: int) -> tf.Tensor:
    """The middle S×S pixels of images [B, H, W, C]; (H - S) // 2 rows are left out above."""
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    return images[:, top : top + size, left : left + size]
