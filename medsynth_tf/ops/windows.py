"""A volume predicted window by window, overlapping windows averaged."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def windowed_mean(
    volume: tf.Tensor, size: int, stride: int, predict: Callable[[tf.Tensor], tf.Tensor], fill: tf.Tensor
) -> tf.Tensor:
    """Mean over all windows of size³ that begin at multiples of `stride` in the volume, which is filled up behind until they fit.

    Args:
        volume: float32 [D, H, W].
        size: side of windows, a multiple of `stride`.
        stride: between them.
        predict: float32 [size, size, size] → float32 of that shape.
        fill: what lies behind the volume, float32 scalar.

    Returns:
        float32 [D, H, W].
    """
    shape = tf.shape(volume)
    blocks_a_window = size // stride
    blocks = tf.maximum(-(-shape // stride), blocks_a_window)  # of stride³, along each axis
    padding = tf.stack([tf.zeros_like(shape), blocks * stride - shape], axis=1)
    padded = tf.pad(volume, padding, constant_values=fill)
    windows = blocks - blocks_a_window + 1
    parts = tf.stack(tf.meshgrid(*(tf.range(blocks_a_window),) * 3, indexing="ij"), -1)
    parts = tf.reshape(parts, [-1, 3])

    def body(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        place = tf.stack([number // (windows[1] * windows[2]), number // windows[2] % windows[1], number % windows[2]])
        window = tf.ensure_shape(tf.slice(padded, place * stride, [size] * 3), [size] * 3)
        split = tf.reshape(predict(window), [blocks_a_window, stride] * 3)
        split = tf.reshape(tf.transpose(split, [0, 2, 4, 1, 3, 5]), [-1, stride, stride, stride])
        return number + 1, tf.tensor_scatter_nd_add(total, place + parts, split)

    start = tf.zeros(tf.concat([blocks, [stride] * 3], 0))
    total = tf.while_loop(
        lambda number, _: number < tf.reduce_prod(windows),
        body,
        (tf.constant(0), start),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, None, stride, stride, stride])),
        parallel_iterations=1,
    )[1]
    for axis in range(3):
        place = tf.range(blocks[axis])
        last = tf.minimum(place, windows[axis] - 1)
        times = last - tf.maximum(place - blocks_a_window + 1, 0) + 1
        total /= tf.reshape(tf.cast(times, tf.float32), [-1 if i == axis else 1 for i in range(6)])
    whole = tf.reshape(tf.transpose(total, [0, 3, 1, 4, 2, 5]), blocks * stride)
    return whole[: shape[0], : shape[1], : shape[2]]
