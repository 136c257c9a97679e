"""A volume predicted slice by slice from differently turned views, fused voxel by voxel, in memory that views do not add to.

A view resamples the volume on the grid of a rotated frame, which just holds all voxels; a network predicts its slices; the
predictions are interpolated back at the voxels. Slices come in slabs, and a voxel is served by the one slab that has both
slices around it, so neither the rotated volume nor its prediction is ever there as a whole. Source: Laprade, Perslev,
Sporring, 2021, section 2 (K sequences of parallel planes, each rotated back, P = mean P_k).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
import tensorflow as tf

from medsynth_tf.ops.resampling import sample_linear, sample_nearest, whole_if_near

_WHOLE = 1e-6


@dataclasses.dataclass(frozen=True)
class View:
    """The grid of a rotated frame over a volume, all float64 or int64 tensors.

    Attributes:
        shape: points along n, u, v.
        to_volume, volume_origin: index coordinates of grid point q are to_volume·q + volume_origin.
        to_grid, grid_origin: grid coordinates of voxel x are to_grid·x + grid_origin.
    """

    shape: tf.Tensor
    to_volume: tf.Tensor
    volume_origin: tf.Tensor
    to_grid: tf.Tensor
    grid_origin: tf.Tensor

    @classmethod
    def over(cls, shape: tf.Tensor, axes: tf.Tensor, frame: np.ndarray | tf.Tensor, pixel: tf.Tensor) -> View:
        """The smallest grid around the volume's centre in which all voxel centres lie.

        Args:
            shape: of the volume, int [3].
            axes: float64 [3, 3], columns are the steps from voxel to voxel in millimetres.
            frame: rotation, columns n, u, v.
            pixel: h, float64 scalar, millimetres.
        """
        rotation = tf.convert_to_tensor(frame, tf.float64)
        to_grid = tf.matmul(rotation, axes, transpose_a=True) / pixel
        middle = (tf.cast(shape, tf.float64) - 1.0) / 2.0
        extent = 2.0 * tf.linalg.matvec(tf.abs(to_grid), middle)
        points = tf.cast(tf.math.ceil(extent - _WHOLE), tf.int64) + 1
        grid_middle = (tf.cast(points, tf.float64) - 1.0) / 2.0
        to_volume = tf.linalg.inv(to_grid)
        return cls(
            shape=points,
            to_volume=to_volume,
            volume_origin=middle - tf.linalg.matvec(to_volume, grid_middle),
            to_grid=to_grid,
            grid_origin=grid_middle - tf.linalg.matvec(to_grid, middle),
        )

    def slices(self, volume: tf.Tensor, first: tf.Tensor, count: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
        """Slices first … first + count - 1 of the view, float32 [count, U, V], interpolated linearly; `fill` outside the volume."""
        numbers = tf.cast(first + tf.range(count), tf.float64)[:, tf.newaxis, tf.newaxis]
        rows = tf.cast(tf.range(self.shape[1]), tf.float64)[:, tf.newaxis]
        columns = tf.cast(tf.range(self.shape[2]), tf.float64)
        moves, origin = self.to_volume, self.volume_origin
        coordinates = [
            moves[axis, 0] * numbers + moves[axis, 1] * rows + (moves[axis, 2] * columns + origin[axis]) for axis in range(3)
        ]
        return sample_linear(volume, coordinates, fill)


def accumulate_view(
    total: tf.Tensor,
    volume: tf.Tensor,
    view: View,
    predict: Callable[[tf.Tensor], tf.Tensor],
    fill: tf.Tensor,
    slices: int,
    interpolation: Literal["linear", "nearest"] = "linear",
) -> tf.Tensor:
    """`total` with the view's prediction added at each voxel, exactly once.

    Args:
        total: float32 [D·H·W].
        volume: float32 [D, H, W].
        view: of this volume.
        predict: float32 [slices, U, V] → float32 of that shape.
        fill: what the network sees outside the volume, float32 scalar.
        slices: in a slab.
        interpolation: of predictions, on the way back.
    """
    shape = tf.shape(volume, tf.int64)
    order = _axes_by_steepness(view)
    slabs = -(-view.shape[0] // slices)
    sample = sample_linear if interpolation == "linear" else sample_nearest

    def body(number: tf.Tensor, sums: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first = number * slices
        predicted = predict(view.slices(volume, first, tf.constant(slices, tf.int64), fill))
        # the slice before the slab serves the voxels between the two
        known = tf.concat([tf.where(number > 0, before, predicted[:1]), predicted], 0)
        voxels, coordinates = _voxels_of_slab(view, shape, order, number, slices)
        values = sample(known, [coordinates[0] - tf.cast(first - 1, tf.float64), *coordinates[1:]])
        return number + 1, tf.tensor_scatter_nd_add(sums, voxels[:, tf.newaxis], values), predicted[-1:]

    start = (tf.constant(0, tf.int64), total, tf.zeros([1, *tf.unstack(view.shape[1:])], tf.float32))
    return tf.while_loop(
        lambda number, *_: number < slabs,
        body,
        start,
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([1, None, None])),
        parallel_iterations=1,
    )[1]


def _axes_by_steepness(view: View) -> tf.Tensor:
    """The volume's axes, the one along which the slice number changes most last, int64 [3]."""
    return tf.cast(tf.argsort(tf.abs(view.to_grid[0])), tf.int64)


def _voxels_of_slab(
    view: View, shape: tf.Tensor, order: tf.Tensor, number: tf.Tensor, slices: int
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The voxels between slice number·slices - 1 (excluded) and (number + 1)·slices - 1 (included): flat positions int64 [M], and grid
    coordinates float64 [M] along each axis.

    Along the steepest axis they are a stretch whose length is known, so only a few candidates a row are looked at.
    """
    steepest, row, column = order[2], order[0], order[1]
    slope = view.to_grid[0, steepest]
    length = shape[steepest]
    stretch = tf.cast(tf.math.ceil(slices / tf.abs(slope)), tf.int64) + 3
    stretch = tf.minimum(stretch, length)
    rows = tf.cast(tf.range(shape[row]), tf.float64)[:, tf.newaxis]
    columns = tf.cast(tf.range(shape[column]), tf.float64)[tf.newaxis]
    base = view.grid_origin[0] + view.to_grid[0, row] * rows + view.to_grid[0, column] * columns  # slice number at position 0
    border = tf.cast(number * slices - 1, tf.float64)
    border += tf.where(slope > 0, tf.constant(0.0, tf.float64), tf.constant(slices, tf.float64))
    begin = tf.cast(tf.floor((border - base) / slope), tf.int64) - 1
    begin = tf.clip_by_value(begin, tf.constant(0, tf.int64), length - stretch)
    places = begin[..., tf.newaxis] + tf.range(stretch)  # [row, column, stretch]
    depth = whole_if_near(base[..., tf.newaxis] + slope * tf.cast(places, tf.float64))
    owner = tf.cast(tf.math.ceil((tf.maximum(depth, 0.0) + 1.0) / slices), tf.int64) - 1
    chosen = tf.where(owner == number)  # [M, 3]: row, column, place in the stretch
    voxel = tf.stack([chosen[:, 0], chosen[:, 1], tf.gather_nd(places, chosen)], -1)
    voxel = tf.gather(voxel, tf.argsort(order), axis=1)  # in array order
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    places = tf.unstack(tf.cast(voxel, tf.float64), num=3, axis=1)
    coordinates = []
    for axis in range(3):
        along = functools.reduce(tf.add, [view.to_grid[axis, i] * place for i, place in enumerate(places)])
        along = whole_if_near(along + view.grid_origin[axis])
        coordinates.append(tf.clip_by_value(along, tf.constant(0.0, tf.float64), tf.cast(view.shape[axis] - 1, tf.float64)))
    return tf.linalg.matvec(voxel, strides), coordinates


def padded_to_multiple(images: tf.Tensor, divisor: int) -> tf.Tensor:
    """Images [B, H, W, C] with their borders repeated, equally on both sides, until both sides are multiples of `divisor`."""
    for axis in (1, 2):
        side = tf.shape(images)[axis]
        missing = -side % divisor
        places = tf.clip_by_value(tf.range(side + missing) - missing // 2, 0, side - 1)
        images = tf.gather(images, places, axis=axis)
    return images


def cropped_back(images: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """The inverse of `padded_to_multiple`, given the sides it began with."""
    top, left = (tf.shape(images)[1] - height) // 2, (tf.shape(images)[2] - width) // 2
    return images[:, top : top + height, left : left + width]
