"""Marks at points of images, for eyes."""

from __future__ import annotations

import tensorflow as tf


def draw_crosses(images: tf.Tensor, points: tf.Tensor, arm: int = 2, colour: tuple[int, int, int] = (64, 255, 64)) -> tf.Tensor:
    """Upright crosses over RGB images.

    Args:
        images: uint8 [B, H, W, 3].
        points: float32 [B, P, 2], (row, column); rows that are not finite are passed over.
        arm: pixels from the centre to an end.
        colour: of the crosses.

    Returns:
        uint8 [B, H, W, 3].
    """
    shape = tf.shape(images)
    places = tf.where(tf.reduce_all(tf.math.is_finite(points), -1))  # [M, 2]: image and row
    centres = tf.cast(tf.round(tf.gather_nd(points, places)), tf.int32)
    reach = tf.range(-arm, arm + 1)
    zeros = tf.zeros_like(reach)
    arms = tf.concat([tf.stack([reach, zeros], -1), tf.stack([zeros, reach], -1)], 0)
    pixels = tf.reshape(centres[:, tf.newaxis] + arms, [-1, 2])
    image = tf.repeat(tf.cast(places[:, 0], tf.int32), tf.shape(arms)[0])
    inside = tf.reduce_all((pixels >= 0) & (pixels < shape[1:3]), -1)
    where = tf.boolean_mask(tf.concat([image[:, tf.newaxis], pixels], -1), inside)
    values = tf.tile(tf.constant([colour], tf.uint8), [tf.shape(where)[0], 1])
    return tf.tensor_scatter_nd_update(images, where, values)
