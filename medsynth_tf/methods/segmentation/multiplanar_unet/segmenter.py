"""From a volume to probabilities: views fused, or for the 3-D network overlapping windows averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from medsynth_tf.methods.segmentation.multiplanar_unet.config import MultiPlanarUNetConfig
from medsynth_tf.methods.segmentation.multiplanar_unet.fusion import ViewFusion
from medsynth_tf.methods.segmentation.multiplanar_unet.intensity import robust_scale
from medsynth_tf.ops.planes import axis_frame
from medsynth_tf.ops.resampling import sample_linear, sample_nearest
from medsynth_tf.ops.views import View, accumulate_view, cropped_back, padded_to_multiple
from medsynth_tf.ops.windows import windowed_mean

THRESHOLD = 0.5


class VolumeSegmenter:
    """Segments volumes of any shape and spacing with one network.

    Args:
        config: of the method.
        network: float32 [B, S, S, 1] → logits [B, S, S, 1], any S that its divisor divides; for `unet3d` with three space axes.
        divisor: of the sides of what the network sees.
        frames: the views' orientations.
        fusion: learned weights of views; None: their mean.
    """

    def __init__(
        self,
        config: MultiPlanarUNetConfig,
        network: Callable[[tf.Tensor], tf.Tensor],
        divisor: int,
        frames: Sequence[np.ndarray],
        fusion: ViewFusion | None = None,
    ):
        self.config, self.network, self.divisor = config, network, divisor
        self.frames, self.fusion = list(frames), fusion

    def pixel(self, axes: tf.Tensor) -> tf.Tensor:
        """h, float64 [...], of axes float64 [..., 3, 3]."""
        if self.config.planes.pixel is not None:
            return tf.fill(tf.shape(axes)[:-2], tf.constant(self.config.planes.pixel, tf.float64))
        return tf.reduce_min(tf.norm(axes, axis=-2), -1)

    def longest_side(self, shape: tf.Tensor, axes: tf.Tensor) -> tf.Tensor:
        """Points along a side that no view of a volume of shape int [3] and axes float64 [..., 3, 3] goes beyond, float64 [...]."""
        signs = tf.constant([[1.0, i, j] for i in (-1.0, 1.0) for j in (-1.0, 1.0)], tf.float64)  # half of the corners
        corners = tf.einsum("...ij,cj->...ci", axes, signs * (tf.cast(shape, tf.float64) - 1.0))
        return tf.reduce_max(tf.norm(corners, axis=-1), -1) / self.pixel(axes) + 1.0

    def predict_slices(self, slices: tf.Tensor) -> tf.Tensor:
        """Foreground probability of slices float32 [N, U, V], padded for the network and cropped again."""
        height, width = tf.shape(slices)[1], tf.shape(slices)[2]
        images = padded_to_multiple(slices[..., tf.newaxis], self.divisor)
        return cropped_back(tf.sigmoid(self.network(images)), height, width)[..., 0]

    def probability(
        self, volume: tf.Tensor, axes: tf.Tensor, views: Sequence[int] | Sequence[tf.Tensor] | None = None
    ) -> tf.Tensor:
        """Foreground probability of each voxel, float32 [D, H, W].

        Args:
            volume: float32 [D, H, W], intensities as they come.
            axes: float64 [3, 3], columns are the steps from voxel to voxel.
            views: mean of these alone, whatever the configuration's fusion; None: all, fused as it says.
        """
        median, scale, fill = robust_scale(volume)
        median, scale, fill = robust_scale(volume)
        normal = (volume - median) / scale
        if self.config.model == "unet3d":
            return self._by_windows(normal, axes, fill)
        chosen = list(range(len(self.frames))) if views is None else list(views)
        fusion = self.fusion if views is None else None
        numbers, frames = tf.convert_to_tensor(chosen, tf.int32), tf.constant(np.stack(self.frames), tf.float64)
        own, pixel = self.config.views, self.pixel(axes)

        def add(position: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            number = numbers[position]
            view = View.over(tf.shape(volume), axes, frames[number], pixel)

            def predict(slices: tf.Tensor) -> tf.Tensor:
                found = self.predict_slices(slices)
                return found if fusion is None else fusion.score(found, number)

            return position + 1, accumulate_view(total, normal, view, predict, fill, own.slices, own.interpolation)

        # a loop in the graph: the network is in it once, however many views there are
        total = tf.while_loop(
            lambda position, _: position < len(chosen),
            add,
            (tf.constant(0), tf.zeros([tf.size(volume)])),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
            parallel_iterations=1,
        )[1]
        total = total / len(chosen) if fusion is None else fusion.decide(total)
        return tf.reshape(total, tf.shape(volume))

    def _by_windows(self, normal: tf.Tensor, axes: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
        """On a grid of cubic voxels along the volume's axes, as the training cubes have them, and back."""
        own = self.config.comparator
        view = View.over(tf.shape(normal), axes, axis_frame(0), self.pixel(axes))
        grid = view.slices(normal, tf.constant(0, tf.int64), view.shape[0], fill)

        def predict(window: tf.Tensor) -> tf.Tensor:
            return tf.sigmoid(self.network(window[tf.newaxis, ..., tf.newaxis]))[0, ..., 0]

        found = windowed_mean(grid, own.size, own.stride, predict, fill)
        sample = sample_linear if self.config.views.interpolation == "linear" else sample_nearest
        rows, columns = (tf.range(tf.shape(normal)[axis]) for axis in (1, 2))

        def back(depth: tf.Tensor) -> tf.Tensor:
            places = tf.stack(tf.meshgrid(depth, rows, columns, indexing="ij"), -1)[0]
            coordinates = tf.linalg.matvec(view.to_grid, tf.cast(places, tf.float64)) + view.grid_origin
            return sample(found, tf.unstack(coordinates, num=3, axis=-1))

        each = tf.TensorSpec([None, None], tf.float32)
        return tf.map_fn(back, tf.range(tf.shape(normal)[0]), fn_output_signature=each, parallel_iterations=1)
