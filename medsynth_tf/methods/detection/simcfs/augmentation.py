"""Mosaics, moves, mirrors and colours of training figures, with their boxes, for a whole batch inside the train step."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.config import DataConfig
from medsynth_tf.methods.detection.simcfs.config import AugmentationConfig
from medsynth_tf.methods.detection.simcfs.detection import PADDING
from medsynth_tf.ops import random
from medsynth_tf.ops.boxes import sizes

LEAST_SIDE, LEAST_AREA, MOST_ASPECT = 2.0, 0.1, 20.0


def augment(
    images: tf.Tensor, boxes: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, config: AugmentationConfig, data: DataConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mosaics of four neighbours in the batch, scaled and shifted; others scaled and shifted alone; then mirrors and colours.

    Boxes are cut at the borders; what is left of them must have sides of 2 pixels, a tenth of its area and an aspect below 20.

    Args:
        images: float32 [B, S, S, 3] in [0, 1].
        boxes: float32 [B, M, 4] in pixels.
        labels: int64 [B, M], -1 where there is no box.
        seeds: int64 [B].
        config: how much.
        data: which mirrors.

    Returns:
        Images of the same shape, boxes [B, 4 M, 4] with mosaics or [B, M, 4] without, and their labels.
    """
    side = images.shape[1]
    draws = random.uniform(seeds, (10,), "figure")
    scale = 1.0 + config.scale * (2.0 * draws[:, 0] - 1.0)
    shift = config.translate * side * (2.0 * draws[:, 1:3] - 1.0)
    if config.mosaic > 0.0:
        is_mosaic = draws[:, 3] < config.mosaic
        meeting = side * (0.5 + draws[:, 4:6])  # where the four meet, on a canvas of twice the side
        images, boxes, labels = _mosaic(images, boxes, labels, is_mosaic, meeting, scale, shift)
    else:
        origin = _around_middle(side, scale, shift)
        everything = tf.constant([[-1e6, -1e6, 1e6, 1e6]])
        images = _moved(images, scale, origin)
        boxes, labels = _clipped(boxes, labels, scale, origin, everything, side)
    for axis, chosen in ((1, (draws[:, 6] < 0.5) & data.flip_horizontal), (0, (draws[:, 7] < 0.5) & data.flip_vertical)):
        images = tf.where(chosen[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, [axis + 1]), images)
        low, high = boxes[..., axis], boxes[..., axis + 2]
        parts = tf.unstack(boxes, axis=-1)
        parts[axis], parts[axis + 2] = side - high, side - low
        boxes = tf.where(chosen[:, tf.newaxis, tf.newaxis], tf.stack(parts, -1), boxes)
    return recolour(images, seeds, config), boxes, labels


def recolour(images: tf.Tensor, seeds: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Hue turned, saturation and value multiplied, each by up to its share; float32 [B, S, S, 3] in [0, 1]."""
    if config.hue == config.saturation == config.value == 0.0:
        return images
    draws = 2.0 * random.uniform(seeds, (3,), "colour") - 1.0
    reach = tf.constant([config.hue, config.saturation, config.value])
    change = (draws * reach)[:, tf.newaxis, tf.newaxis]
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(images), axis=-1)
    hue = tf.math.floormod(hue * (1.0 + change[..., 0]), 1.0)
    others = [tf.clip_by_value(x * (1.0 + change[..., i]), 0.0, 1.0) for i, x in ((1, saturation), (2, value))]
    return tf.image.hsv_to_rgb(tf.stack([hue, *others], -1))


def _around_middle(side: int, scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Where an image's first corner goes when it is scaled about its middle, then shifted: [B, 2]."""
    return side / 2.0 * (1.0 - scale)[:, tf.newaxis] + shift


def _mosaic(
    images: tf.Tensor,
    boxes: tf.Tensor,
    labels: tf.Tensor,
    is_mosaic: tf.Tensor,
    meeting: tf.Tensor,
    scale: tf.Tensor,
    shift: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    side = images.shape[1]
    # the canvas of twice the side is scaled about its middle, and its central square is what is seen
    canvas = _around_middle(2 * side, scale, shift) - side / 2.0
    alone = _around_middle(side, scale, shift)
    everything = tf.constant([[-1e6, -1e6, 1e6, 1e6]])
    result = tf.fill(tf.shape(images), PADDING / 255.0)
    all_boxes, all_labels = [], []
    axis = tf.range(side, dtype=tf.float32) + 0.5
    rows, columns = tf.meshgrid(axis, axis, indexing="ij")
    middle = canvas + scale[:, tf.newaxis] * meeting
    for quadrant in range(4):
        down, right = quadrant // 2, quadrant % 2
        # the corner of the image that lies at the meeting point is the one that faces it
        corner = meeting - tf.constant([1.0 - down, 1.0 - right]) * side
        origin = canvas + scale[:, tf.newaxis] * corner
        first = quadrant == 0
        origin = tf.where(is_mosaic[:, tf.newaxis], origin, alone)
        here = [tf.roll(x, -quadrant, 0) for x in (images, boxes, labels)]
        low = tf.stack(
            [middle[:, axis] if far else tf.fill(tf.shape(scale), -1e6) for axis, far in ((0, down), (1, right))], -1
        )
        high = tf.stack(
            [tf.fill(tf.shape(scale), 1e6) if far else middle[:, axis] for axis, far in ((0, down), (1, right))], -1
        )
        region = tf.where(is_mosaic[:, tf.newaxis], tf.concat([low, high], -1), everything)
        moved = _moved(here[0], scale, origin)
        top, left, bottom, behind = (region[:, i, tf.newaxis, tf.newaxis] for i in range(4))
        seen = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < behind)
        seen &= (is_mosaic | first)[:, tf.newaxis, tf.newaxis]
        result = tf.where(seen[..., tf.newaxis], moved, result)
        own_boxes, own_labels = _clipped(here[1], here[2], scale, origin, region, side)
        all_boxes.append(own_boxes)
        all_labels.append(tf.where((is_mosaic | first)[:, tf.newaxis], own_labels, tf.constant(-1, tf.int64)))
    return result, tf.concat(all_boxes, 1), tf.concat(all_labels, 1)


def _moved(images: tf.Tensor, scale: tf.Tensor, origin: tf.Tensor) -> tf.Tensor:
    """Images whose point p (in pixels from the corner) goes to origin + scale·p, over grey."""
    zeros = tf.zeros_like(scale)
    # the operation counts from centres of pixels
    offset = (0.5 - origin) / scale[:, tf.newaxis] - 0.5
    transforms = tf.stack([1.0 / scale, zeros, offset[:, 1], zeros, 1.0 / scale, offset[:, 0], zeros, zeros], -1)
    grey = PADDING / 255.0
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images - grey,
        transforms=transforms,
        output_shape=images.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.clip_by_value(moved + grey, 0.0, 1.0)


def _clipped(
    boxes: tf.Tensor, labels: tf.Tensor, scale: tf.Tensor, origin: tf.Tensor, region: tf.Tensor, side: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes moved as `_moved` moves images and cut at the region [B or 1, 4] and the square; labels -1 for what is no use then."""
    moved = scale[:, tf.newaxis, tf.newaxis] * boxes + tf.concat([origin, origin], -1)[:, tf.newaxis]
    low = tf.maximum(region[:, tf.newaxis, :2], 0.0)
    high = tf.minimum(region[:, tf.newaxis, 2:], float(side))
    corners = [tf.clip_by_value(moved[..., part], low, tf.maximum(low, high)) for part in (slice(0, 2), slice(2, 4))]
    cut = tf.concat(corners, -1)
    extent = sizes(cut)
    least, most = tf.reduce_min(extent, -1), tf.reduce_max(extent, -1)
    area, before = tf.reduce_prod(extent, -1), tf.reduce_prod(sizes(moved), -1)
    good = (least >= LEAST_SIDE) & (area > LEAST_AREA * before) & (most < MOST_ASPECT * tf.maximum(least, 1e-6))
    return cut, tf.where(good, labels, tf.constant(-1, tf.int64))
