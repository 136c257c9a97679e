"""Blobs in binary and probability maps, in TensorFlow alone, so that exported models find them too: Otsu's threshold, opening,
connected components, and what each component measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Blobs(NamedTuple):
    """Connected components of a batch of maps, N in all, image by image in the order of their first pixels.

    Attributes:
        image: which image each is in, int32 [N].
        area: pixels, int32 [N].
        centroid: mean (row, column), float32 [N, 2].
        low: first row and column of the bounding box, int32 [N, 2].
        high: those after the last, int32 [N, 2].
    """

    image: tf.Tensor
    area: tf.Tensor
    centroid: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


def otsu_threshold(maps: tf.Tensor, bins: int = 256) -> tf.Tensor:
    """The threshold that separates each map's values into two classes with the largest variance between them (Otsu 1979).

    Args:
        maps: float32 [B, H, W].
        bins: of the histogram over each map's own range; thresholds are centres of bins.

    Returns:
        float32 [B]; of a constant map its value.
    """
    batch = tf.shape(maps)[0]
    values = tf.reshape(tf.cast(maps, tf.float32), [batch, -1])
    low, high = tf.reduce_min(values, 1, keepdims=True), tf.reduce_max(values, 1, keepdims=True)
    width = (high - low) / bins
    index = tf.cast(tf.math.divide_no_nan(values - low, width), tf.int32)
    index = tf.minimum(index, bins - 1) + bins * tf.range(batch)[:, tf.newaxis]
    counts = tf.math.unsorted_segment_sum(tf.ones_like(values, tf.float32), index, bins * batch)
    counts = tf.cast(tf.reshape(counts, [batch, bins]), tf.float64)
    centres = tf.cast(low + width * (tf.range(bins, dtype=tf.float32) + 0.5), tf.float64)
    below, above = tf.cumsum(counts, 1), tf.cumsum(counts, 1, reverse=True)
    mean_below = tf.math.divide_no_nan(tf.cumsum(counts * centres, 1), below)
    mean_above = tf.math.divide_no_nan(tf.cumsum(counts * centres, 1, reverse=True), above)
    between = below[:, :-1] * above[:, 1:] * tf.square(mean_below[:, :-1] - mean_above[:, 1:])
    best = tf.argmax(between, 1)
    return tf.where(high[:, 0] > low[:, 0], tf.cast(tf.gather(centres, best, batch_dims=1), tf.float32), low[:, 0])


def opening(mask: tf.Tensor, radius: int) -> tf.Tensor:
    """Erosion, then dilation, by the disc x² + y² <= radius²; nothing is set outside a map.

    Args:
        mask: bool [B, H, W].
        radius: of the disc in pixels.

    Returns:
        bool [B, H, W].
    """
    axis = np.arange(-radius, radius + 1)
    disc = (axis[:, np.newaxis] ** 2 + axis[np.newaxis] ** 2 <= radius**2).astype(np.float32)
    kernel = tf.constant(disc[:, :, np.newaxis, np.newaxis])

    def covered(inside: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(tf.cast(inside, tf.float32)[..., tf.newaxis], kernel, 1, "SAME")[..., 0]

    eroded = covered(mask) > float(disc.sum()) - 0.5
    return covered(eroded) > 0.5


def label_components(mask: tf.Tensor) -> tf.Tensor:
    """A number for each 8-connected component: pixels of one component share it, and it is larger the earlier its first pixel is.

    The largest number of each neighbourhood spreads until nothing changes: as many rounds as the longest way within a component.

    Args:
        mask: bool [B, H, W]; fewer than 2²⁴ pixels a map.

    Returns:
        int32 [B, H, W]: 0 outside; else H·W less the position of the component's first pixel in its map.
    """
    height, width = tf.shape(mask)[1], tf.shape(mask)[2]
    inside = tf.cast(mask, tf.float32)[..., tf.newaxis]
    numbers = tf.reshape(tf.cast(tf.range(height * width, 0, -1), tf.float32), [1, height, width, 1])

    def spread(current: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spread = tf.nn.max_pool2d(current, 3, 1, "SAME") * inside
        return spread, tf.reduce_any(spread != current)

    labels, _ = tf.while_loop(lambda _, changed: changed, spread, (numbers * inside, tf.constant(True)), parallel_iterations=1)
    return tf.cast(labels[..., 0], tf.int32)


def measure_components(labels: tf.Tensor) -> Blobs:
    """Area, centroid and bounding box of each component of `label_components`' maps, int32 [B, H, W]."""
    shape = tf.shape(labels)
    pixels = tf.where(labels > 0)  # [M, 3] int64, in order
    number = tf.gather_nd(tf.cast(labels, tf.int64), pixels)
    name = pixels[:, 0] * tf.cast(shape[1] * shape[2] + 1, tf.int64) + number
    names, blob = tf.unique(name)
    count = tf.size(names)
    pixels = tf.cast(pixels, tf.int32)
    ones = tf.ones_like(blob)
    area = tf.math.unsorted_segment_sum(ones, blob, count)
    places = pixels[:, 1:]
    total = tf.math.unsorted_segment_sum(tf.cast(places, tf.float64), blob, count)
    return Blobs(
        image=tf.math.unsorted_segment_max(pixels[:, 0], blob, count),
        area=area,
        centroid=tf.cast(total / tf.cast(area, tf.float64)[:, tf.newaxis], tf.float32),
        low=tf.math.unsorted_segment_min(places, blob, count),
        high=tf.math.unsorted_segment_max(places, blob, count) + 1,
    )


def cut_lines(blobs: Blobs, chosen: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Where a one-pixel line through the centroid of each chosen blob runs across the shorter side of its bounding box.

    Boxes no wider than high are crossed by a row, others by a column; lines end with their boxes.

    Args:
        blobs: of `measure_components`.
        chosen: bool [N], which are cut.
        shape: of the maps, int32 [3].

    Returns:
        bool [B, H, W].
    """
    extent = blobs.high - blobs.low
    flat = extent[:, 1] <= extent[:, 0]
    middle = tf.cast(blobs.centroid, tf.int32)  # both are not negative, so this rounds down

    def lines(which: tf.Tensor, along: int) -> tf.Tensor:
        """Marks of +1 where a line begins and -1 behind its end, added up along it."""
        image, place = tf.boolean_mask(blobs.image, which), tf.boolean_mask(middle[:, 1 - along], which)
        padded = shape + tf.one_hot(along + 1, 3, dtype=tf.int32)
        marks = tf.zeros(padded, tf.int32)
        for corner, value in ((blobs.low, 1), (blobs.high, -1)):
            end = tf.boolean_mask(corner[:, along], which)
            where = tf.stack([image, place, end] if along == 1 else [image, end, place], -1)
            marks = tf.tensor_scatter_nd_add(marks, where, tf.fill([tf.shape(where)[0]], value))
        covered = tf.cumsum(marks, along + 1)
        return tf.slice(covered, [0, 0, 0], shape) > 0

    return lines(chosen & flat, 1) | lines(chosen & ~flat, 0)
