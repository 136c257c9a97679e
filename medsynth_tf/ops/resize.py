"""Resizing by whole factors, differentiable twice and compiled by XLA on every device."""

from __future__ import annotations

import tensorflow as tf


def upsample_nearest(x: tf.Tensor, factor: int = 2) -> tf.Tensor:
    """Each pixel repeated `factor` times along both axes: [B, H, W, C] → [B, fH, fW, C].

    By broadcasting and not by `tf.image.resize`, whose gradient XLA cannot compile on CPU.
    """
    batch = tf.shape(x)[0]
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    repeated = tf.broadcast_to(x[:, :, tf.newaxis, :, tf.newaxis, :], [batch, height, factor, width, factor, channels])
    return tf.reshape(repeated, [batch, height * factor, width * factor, channels])


def downsample_nearest(x: tf.Tensor, factor: int) -> tf.Tensor:
    """Every `factor`-th pixel from the first: [B, H, W, …] → [B, H/f, W/f, …], the reference's nearest resize of label maps."""
    return x if factor == 1 else x[:, ::factor, ::factor]


def downsample_average(x: tf.Tensor, factor: int) -> tf.Tensor:
    """Average of each square of `factor` pixels: [B, H, W, C] → [B, H/f, W/f, C]. Planes that sum to 1 in each pixel keep doing so."""
    return x if factor == 1 else tf.nn.avg_pool2d(x, factor, factor, "VALID")


def halve_by_average(x: tf.Tensor) -> tf.Tensor:
    """Average over 3×3 windows at stride 2, padding one pixel all round and not counting it: [B, H, W, C] → [B, ⌈H/2⌉, ⌈W/2⌉, C].

    TensorFlow's "same" pooling would place the windows one pixel further for even sizes.
    """
    pad = [[0, 0], [1, 1], [1, 1], [0, 0]]
    total = tf.nn.avg_pool2d(tf.pad(x, pad), 3, 2, "VALID")
    share = tf.nn.avg_pool2d(tf.pad(tf.ones_like(x[:1, :, :, :1]), pad), 3, 2, "VALID")
    return total / share


def upsample_align_corners(x: tf.Tensor, factor: int = 2) -> tf.Tensor:
    """Bilinear enlargement whose corner pixels keep their places: [B, H, W, C] → [B, fH, fW, C]. It has a first derivative only."""
    size = [x.shape[1] * factor, x.shape[2] * factor]
    return tf.cast(tf.raw_ops.ResizeBilinear(images=x, size=size, align_corners=True), x.dtype)
