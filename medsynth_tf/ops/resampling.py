"""Values between the points of a grid, in the graph: linear and nearest, for two and three space axes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

_SNAP = 1e-6  # of a grid step: what rounding may have taken from a coordinate that is whole


def whole_if_near(coordinates: tf.Tensor) -> tf.Tensor:
    """float64 coordinates, those within 1e-6 of a whole number made whole: a grid point's value then comes back exactly."""
    rounded = tf.round(coordinates)
    return tf.where(tf.abs(coordinates - rounded) < _SNAP, rounded, coordinates)


def inside(coordinates: Sequence[tf.Tensor], shape: tf.Tensor) -> tf.Tensor:
    """Whether points lie within half a step of the grid of `shape` [N]; bool [...].

    Args:
        coordinates: N tensors float64 [...].
    """
    last = tf.cast(shape, tf.float64) - 0.5
    known = [(along >= -0.5 - _SNAP) & (along <= last[axis] + _SNAP) for axis, along in enumerate(coordinates)]
    return functools.reduce(tf.logical_and, known)


def sample_linear(values: tf.Tensor, coordinates: Sequence[tf.Tensor], fill: tf.Tensor | float = 0.0) -> tf.Tensor:
    """Linear interpolation along all axes; within the outer half step the border's values go on, beyond it is `fill`.

    Args:
        values: float [S1, …, SN].
        coordinates: of the points, N tensors float64 [...], in steps of the grid, 0 at its first point. One tensor an axis:
            TensorFlow's sums over a last axis of three are slow.
        fill: of the values' type.

    Returns:
        [...] of the values' type.
    """
    shape = tf.shape(values, tf.int64)
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    zero = tf.constant(0, tf.int64)
    parts, steps, base = [], [], zero
    for axis, given in enumerate(coordinates):
        along = tf.clip_by_value(whole_if_near(given), tf.constant(0.0, tf.float64), tf.cast(shape[axis] - 1, tf.float64))
        lower = tf.floor(along)
        part = tf.cast(along - lower, values.dtype)
        parts.append(part)
        # a whole coordinate has no upper neighbour, so that none beyond the border is asked for
        steps.append(tf.where(part > 0, strides[axis], zero))
        base += tf.cast(lower, tf.int64) * strides[axis]
    found = _between(tf.reshape(values, [-1]), base, steps, parts)
    return tf.where(inside(coordinates, shape), found, tf.cast(fill, values.dtype))


def _between(flat: tf.Tensor, base: tf.Tensor, steps: list[tf.Tensor], parts: list[tf.Tensor]) -> tf.Tensor:
    """The value at `base` with `parts` of the way to the upper neighbours along the axes that are left."""
    if not steps:
        return tf.gather(flat, base)
    lower = _between(flat, base, steps[1:], parts[1:])
    upper = _between(flat, base + steps[0], steps[1:], parts[1:])
    return lower + parts[0] * (upper - lower)


def sample_nearest(values: tf.Tensor, coordinates: Sequence[tf.Tensor], fill: tf.Tensor | float = 0) -> tf.Tensor:
    """The value of the nearest grid point; arguments as for `sample_linear`, values of any type."""
    shape = tf.shape(values, tf.int64)
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    position = tf.constant(0, tf.int64)
    for axis, along in enumerate(coordinates):
        nearest = tf.cast(tf.floor(whole_if_near(along) + 0.5), tf.int64)
        position += tf.clip_by_value(nearest, tf.constant(0, tf.int64), shape[axis] - 1) * strides[axis]
    found = tf.gather(tf.reshape(values, [-1]), position)
    return tf.where(inside(coordinates, shape), found, tf.cast(fill, values.dtype))
