"""The orientations that volumes are segmented from: fixed for a configuration, so that an answer can be repeated."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.methods.segmentation.multiplanar_unet.config import MultiPlanarUNetConfig
from medsynth_tf.ops.planes import axis_frame, random_frame


def view_frames(config: MultiPlanarUNetConfig) -> list[np.ndarray]:
    """K rotations [3, 3] with columns n, u, v, at random from the seed; along the axes if planes are; the 3-D network's is none."""
    if config.model == "unet3d":
        return [axis_frame(0)]
    if config.planes.orientation == "axis_aligned":
        return [axis_frame(axis) for axis in range(config.views.count)]
    rng = numpy_generator(config.seed, "multiplanar_unet/views")
    return [random_frame(rng) for _ in range(config.views.count)]
