"""Photograph and masks as one tensor [B, S, S, 3 + masks], and back (Makinde and Saeed, section 2.2)."""

from __future__ import annotations

import tensorflow as tf


def join(images: tf.Tensor, label_maps: tf.Tensor, masks: int, levels: tuple[float, float]) -> tf.Tensor:
    """RGB scaled to [-1, 1] with one channel a mask.

    Args:
        images: uint8 [B, S, S, 3].
        label_maps: uint8 [B, S, S]; code i + 1 is inside mask i.
        masks: how many channels follow RGB.
        levels: values outside and inside a mask.

    Returns:
        float32 [B, S, S, 3 + masks].
    """
    colours = tf.cast(images, tf.float32) / 127.5 - 1.0
    if not masks:
        return colours
    inside = tf.one_hot(tf.cast(label_maps, tf.int32) - 1, masks)  # other codes, 255 among them, are in no mask
    outside, within = levels
    return tf.concat([colours, outside + (within - outside) * inside], axis=-1)


def split(joint: tf.Tensor, threshold: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The photographs and the masks of generated tensors.

    Args:
        joint: float [B, S, S, 3 + masks]; RGB in [-1, 1], values outside are clipped.
        threshold: mask values above it are inside.

    Returns:
        uint8 [B, S, S, 3], round(255 (x + 1) / 2); and bool [B, S, S, masks].
    """
    joint = tf.cast(joint, tf.float32)
    colours = tf.clip_by_value(joint[..., :3], -1.0, 1.0)
    return tf.cast(tf.round((colours + 1.0) * 127.5), tf.uint8), joint[..., 3:] > threshold


def label_map(inside: tf.Tensor) -> tf.Tensor:
    """bool [B, S, S, masks] → uint8 [B, S, S]: 0 where no mask is, else the first mask's number counted from 1."""
    if inside.shape[-1] == 0:
        return tf.zeros(tf.shape(inside)[:-1], tf.uint8)
    number = tf.argmax(tf.cast(inside, tf.int32), axis=-1, output_type=tf.int32) + 1  # of equal values the first
    return tf.cast(tf.where(tf.reduce_any(inside, axis=-1), number, 0), tf.uint8)


def is_empty(inside: tf.Tensor) -> tf.Tensor:
    """bool [B, S, S, masks] → bool [B]: whether one of a sample's masks has no pixel."""
    return tf.logical_not(tf.reduce_all(tf.reduce_any(inside, axis=[1, 2]), axis=-1))
