"""Which part of an image is made anew: random holes, crops around them, and compositions with soft borders.

A mask is float32 [B, S, S, 1] with 1 where the image is kept and 0 in the hole. All randomness is per sample, from its seed.
"""

from __future__ import annotations

import math

import tensorflow as tf

from medsynth_tf.ops import random
from medsynth_tf.ops.gaussian import gaussian_blur

CANDIDATES = 16  # places drawn for a hole; the first that has enough retina in it is taken
STROKE_POINTS = 5


def square_holes(
    seeds: tf.Tensor,
    size: int,
    side: tuple[float, float],
    count: int = 1,
    inside: tf.Tensor | None = None,
    inside_share: float = 0.5,
) -> tf.Tensor:
    """`count` random squares an image, each wholly within it.

    Args:
        seeds: int64 [B].
        size: S.
        side: smallest and largest side, as shares of S; uniform between.
        count: squares an image; they may overlap.
        inside: bool [B, S, S], where holes belong (the retina); None: anywhere.
        inside_share: of a square's area that must belong there; where none of the drawn places has so much, the best is taken.

    Returns:
        The mask, float32 [B, S, S, 1].
    """
    numbers = random.uniform(seeds, (count, 1 + 2 * CANDIDATES), "square holes")
    low, high = side
    sides = tf.clip_by_value(tf.cast(tf.round((low + (high - low) * numbers[..., 0]) * size), tf.int32), 1, size)  # [B, count]
    room = tf.cast(size - sides + 1, tf.float32)[..., tf.newaxis]
    places = tf.cast(tf.floor(numbers[..., 1:] * room), tf.int32)
    tops, lefts = places[..., :CANDIDATES], places[..., CANDIDATES:]  # [B, count, CANDIDATES]
    if inside is None:
        top, left = tops[..., 0], lefts[..., 0]
    else:
        shares = _box_shares(inside, tops, lefts, sides[..., tf.newaxis])
        chosen = _first_enough(shares, inside_share)
        top, left = (tf.gather(values, chosen, batch_dims=2) for values in (tops, lefts))
    return _keep_outside(top, left, sides, size)


def centre_hole(seeds: tf.Tensor, size: int, side: float) -> tf.Tensor:
    """One square in the middle of every image, of `side`·S pixels: the mask, float32 [B, S, S, 1]."""
    pixels = tf.fill([tf.shape(seeds)[0], 1], max(1, round(side * size)))
    start = (size - pixels) // 2
    return _keep_outside(start, start, pixels, size)


def stroke_holes(
    seeds: tf.Tensor, size: int, length: tuple[float, float], width: float, count: int = 1, inside: tf.Tensor | None = None
) -> tf.Tensor:
    """`count` irregular strokes an image: bent lines of round ends.

    Args:
        seeds: int64 [B].
        size: S.
        length: shortest and longest, as shares of S.
        width: of the line, as a share of S.
        count: strokes an image.
        inside: bool [B, S, S], where strokes begin; None: anywhere.

    Returns:
        The mask, float32 [B, S, S, 1].
    """
    numbers = random.uniform(seeds, (count, 2 + (STROKE_POINTS - 2) + 2 * CANDIDATES), "stroke holes")
    places = tf.cast(tf.floor(numbers[..., -2 * CANDIDATES :] * size), tf.int32)
    rows, columns = places[..., :CANDIDATES], places[..., CANDIDATES:]
    chosen = tf.zeros(tf.shape(rows)[:2], tf.int32)
    if inside is not None:
        shares = _box_shares(inside, rows, columns, tf.ones_like(rows))
        chosen = _first_enough(shares, 1.0)
    row, column = (tf.cast(tf.gather(values, chosen, batch_dims=2), tf.float32) for values in (rows, columns))
    step = (length[0] + (length[1] - length[0]) * numbers[..., 0]) * size / (STROKE_POINTS - 1)
    heading = 2 * math.pi * numbers[..., 1]
    axis = tf.range(size, dtype=tf.float32)
    y, x = axis[tf.newaxis, :, tf.newaxis], axis[tf.newaxis, tf.newaxis, :]
    hole = tf.zeros([tf.shape(seeds)[0], size, size], tf.bool)
    for point in range(STROKE_POINTS - 1):
        if point:
            heading += (numbers[..., 1 + point] - 0.5) * (2 * math.pi / 3)
        down, right = step * tf.sin(heading), step * tf.cos(heading)
        for stroke in range(count):
            begin_y, begin_x, span_y, span_x = (
                value[:, stroke, tf.newaxis, tf.newaxis] for value in (row, column, down, right)
            )
            along = ((y - begin_y) * span_y + (x - begin_x) * span_x) / tf.maximum(span_y**2 + span_x**2, 1e-6)
            along = tf.clip_by_value(along, 0.0, 1.0)
            distance = (y - begin_y - along * span_y) ** 2 + (x - begin_x - along * span_x) ** 2
            hole |= distance <= (0.5 * width * size) ** 2
        row, column = row + down, column + right
    return 1.0 - tf.cast(hole, tf.float32)[..., tf.newaxis]


def _keep_outside(top: tf.Tensor, left: tf.Tensor, side: tf.Tensor, size: int) -> tf.Tensor:
    axis = tf.range(size)
    within = [
        (axis >= start[..., tf.newaxis]) & (axis < (start + side)[..., tf.newaxis]) for start in (top, left)
    ]  # each [B, count, S]
    squares = within[0][..., :, tf.newaxis] & within[1][..., tf.newaxis, :]
    return 1.0 - tf.cast(tf.reduce_any(squares, axis=1), tf.float32)[..., tf.newaxis]


def _box_shares(inside: tf.Tensor, top: tf.Tensor, left: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Share of each square's area that is inside, from sums over the rectangles above and left of each pixel."""
    sums = tf.cumsum(tf.cumsum(tf.cast(inside, tf.int32), axis=1), axis=2)
    sums = tf.pad(sums, [[0, 0], [1, 0], [1, 0]])

    def upto(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(sums, tf.stack([row, column], -1), batch_dims=1)

    bottom, right = top + side, left + side
    area = upto(bottom, right) - upto(top, right) - upto(bottom, left) + upto(top, left)
    return tf.cast(area, tf.float32) / tf.cast(side * side, tf.float32)


def _first_enough(shares: tf.Tensor, least: float) -> tf.Tensor:
    """Position of the first share on the last axis that is at least `least`, or of the largest."""
    enough = tf.cast(shares >= least, tf.float32)
    return tf.argmax(tf.where(tf.reduce_any(shares >= least, -1, keepdims=True), enough, shares), -1, output_type=tf.int32)


def hole_weight(keep: tf.Tensor, feather: float = 0.0) -> tf.Tensor:
    """How much of a composition is made anew: 0 outside the hole, rising within it to 1 over a soft border.

    The border is the upper half of the hole blurred by a Gaussian, so that it lies within the hole and nothing outside changes.

    Args:
        keep: the mask [B, S, S, 1].
        feather: standard deviation of the Gaussian in pixels; 0: a hard border.
    """
    hole = 1.0 - tf.cast(keep, tf.float32)
    if feather == 0.0:
        return hole
    return hole * tf.clip_by_value(2.0 * gaussian_blur(hole, feather) - 1.0, 0.0, 1.0)


def compose(image: tf.Tensor, generated: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """(1 - w)·image + w·generated: exactly the image where w is 0, exactly the other where it is 1; float32 [B, S, S, C]."""
    return (1.0 - weight) * tf.cast(image, tf.float32) + weight * tf.cast(generated, tf.float32)


def crop_around_hole(images: tf.Tensor, keep: tf.Tensor, side: int) -> tf.Tensor:
    """Squares of `side` pixels around the middle of each hole, moved to lie within the image; whole pixels, so differentiable.

    Args:
        images: [B, S, S, C].
        keep: the mask [B, S, S, 1]; where it has no hole, the image's middle is taken.
        side: at most S.

    Returns:
        [B, side, side, C].
    """
    size = images.shape[1]
    hole = 1.0 - keep[..., 0]
    total = tf.reduce_sum(hole, [1, 2])
    axis = tf.range(size, dtype=tf.float32)

    def places(across: int) -> tf.Tensor:
        middle = tf.math.divide_no_nan(tf.reduce_sum(hole * tf.expand_dims(axis, across), [1, 2]), total)
        middle = tf.where(total > 0, middle, (size - 1) / 2)
        start = tf.clip_by_value(tf.cast(tf.round(middle - (side - 1) / 2), tf.int32), 0, size - side)
        return start[:, tf.newaxis] + tf.range(side)

    rows = tf.gather(images, places(1), axis=1, batch_dims=1)
    return tf.gather(rows, places(0), axis=2, batch_dims=1)
