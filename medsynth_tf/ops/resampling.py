"""Values between the points of a grid, in the graph: linear and nearest, for two and three space axes."""

from __future__ import annotations

import itertools

import tensorflow as tf

_SNAP = 1e-6  # of a grid step: what rounding may have taken from a coordinate that is whole


def whole_if_near(coordinates: tf.Tensor) -> tf.Tensor:
    """float64 coordinates, those within 1e-6 of a whole number made whole: a grid point's value then comes back exactly."""
    rounded = tf.round(coordinates)
    return tf.where(tf.abs(coordinates - rounded) < _SNAP, rounded, coordinates)


def inside(coordinates: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Whether coordinates [..., N] lie within half a step of the grid of `shape` [N]; bool [...]."""
    last = tf.cast(shape, tf.float64) - 0.5
    return tf.reduce_all((coordinates >= -0.5 - _SNAP) & (coordinates <= last + _SNAP), -1)


def sample_linear(values: tf.Tensor, coordinates: tf.Tensor, fill: tf.Tensor | float = 0.0) -> tf.Tensor:
    """Linear interpolation along all axes; within the outer half step the border's values go on, beyond it is `fill`.

    Args:
        values: float [S1, …, SN].
        coordinates: float64 [..., N], in steps of the grid, 0 at its first point.
        fill: of the values' type.

    Returns:
        [...] of the values' type.
    """
    shape = tf.shape(values, tf.int64)
    dimensions = values.shape.rank
    flat = tf.reshape(values, [-1])
    known = inside(coordinates, shape)
    last = tf.cast(shape - 1, tf.float64)
    coordinates = tf.clip_by_value(whole_if_near(coordinates), tf.constant(0.0, tf.float64), last)
    lower = tf.floor(coordinates)
    part = tf.cast(coordinates - lower, values.dtype)
    lower = tf.cast(lower, tf.int64)
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    # a whole coordinate has no upper neighbour, so that none beyond the border is asked for
    steps = tf.where(part > 0, strides, tf.zeros_like(strides))
    base = tf.reduce_sum(lower * strides, -1)
    total = tf.zeros(tf.shape(base), values.dtype)
    for corner in itertools.product((0, 1), repeat=dimensions):
        position, weight = base, tf.ones_like(total)
        for axis, upper in enumerate(corner):
            position = position + steps[..., axis] if upper else position
            weight *= part[..., axis] if upper else 1 - part[..., axis]
        total += weight * tf.gather(flat, position)
    return tf.where(known, total, tf.cast(fill, values.dtype))


def sample_nearest(values: tf.Tensor, coordinates: tf.Tensor, fill: tf.Tensor | float = 0) -> tf.Tensor:
    """The value of the nearest grid point; arguments as for `sample_linear`, values of any type."""
    shape = tf.shape(values, tf.int64)
    known = inside(coordinates, shape)
    nearest = tf.cast(tf.floor(whole_if_near(coordinates) + 0.5), tf.int64)
    nearest = tf.clip_by_value(nearest, tf.zeros_like(shape), shape - 1)
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    found = tf.gather(tf.reshape(values, [-1]), tf.reduce_sum(nearest * strides, -1))
    return tf.where(known, found, tf.cast(fill, values.dtype))
