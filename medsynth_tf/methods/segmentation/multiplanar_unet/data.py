"""Planes to batches: the fixed ones of a run from memory, or new ones for each batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.source import RecordKey, Source, stream_order
from medsynth_tf.methods.segmentation.multiplanar_unet.augmentation import augment
from medsynth_tf.methods.segmentation.multiplanar_unet.config import MultiPlanarUNetConfig
from medsynth_tf.methods.segmentation.multiplanar_unet.planes import (
    UNKNOWN,
    AnnotatedVolume,
    PlaneSampler,
    PlaneSet,
    annotated_volumes,
    labelled_example,
    plane_set,
)
from medsynth_tf.methods.segmentation.multiplanar_unet.views import view_frames

Example = dict[str, tf.Tensor]


class DrawnPlanes:
    """Training planes that are new each time; example i depends on the seed and i alone. The annotated volumes stay in memory.

    Args:
        source, config, split, seed: as for `Method.dataset`.

    Raises:
        DataError: as `annotated_volumes`; or no annotated pixel is foreground and some must be.
    """

    def __init__(self, source: Source, config: MultiPlanarUNetConfig, split: str, seed: int):
        self.config, self.seed = config, seed
        self.volumes: list[tuple[RecordKey, AnnotatedVolume]] = [
            (key, volume) for key, volume, _ in annotated_volumes(source, config, split, seed)
        ]
        self.live = config.planes.draw == "live"
        self.with_foreground = [i for i, (_, volume) in enumerate(self.volumes) if (volume.sparse == 1).any()]
        if self.live and config.planes.foreground_share and not self.with_foreground:
            raise DataError(
                "planes.draw 'live' needs foreground on the annotated planes; there is none: raise planes.annotation"
            )
        self.normals = np.stack([frame[:, 0] for frame in view_frames(config)]) if self.live else None

    @property
    def annotated_pixels(self) -> int:
        """Annotated voxels that all planes are cut through."""
        return sum(int((volume.sparse != UNKNOWN).sum()) for _, volume in self.volumes)

    def example(self, index: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """Image float32, codes uint8, fill."""
        rng = numpy_generator(self.seed, "multiplanar_unet/redraw", index)
        batch, share = self.config.training.batch_size, self.config.planes.foreground_share
        foreground = self.live and index % batch < share * batch
        chosen = int(rng.choice(self.with_foreground) if foreground else rng.integers(len(self.volumes)))
        key, volume = self.volumes[chosen]
        sampler = PlaneSampler(volume.place, self.config, rng)
        image, codes = labelled_example(volume, sampler, self.config, key, self.normals, foreground)
        return image, codes, np.float32(volume.fill)


def examples_of(source: Source, config: MultiPlanarUNetConfig, split: str, seed: int, training: bool) -> PlaneSet | DrawnPlanes:
    """What batches are made of; outside training planes are always fixed."""
    if training and config.planes.draw != "fixed":
        return DrawnPlanes(source, config, split, seed)
    return plane_set(source, config, split, seed)


def examples_a_pass(examples: PlaneSet | DrawnPlanes, config: MultiPlanarUNetConfig) -> int:
    """All fixed planes; of drawn ones `planes.training`."""
    return len(examples.image) if isinstance(examples, PlaneSet) else config.planes.training


def batches(
    examples: PlaneSet | DrawnPlanes,
    config: MultiPlanarUNetConfig,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches {"image": float32 [B, S, S, 1], "label": uint8 [B, S, S], "seed": int64 [B]}; cubes for the 3-D network.

    Labels are 0, 1 or 255, not annotated.

    Args:
        examples: from `examples_of`.
        config, seed, first_step, epochs, training: as for `Method.dataset`.
    """
    fixed = isinstance(examples, PlaneSet)
    count, batch = examples_a_pass(examples, config), config.training.batch_size
    anew = training and epochs is not None
    order = stream_order(count, seed, training and fixed, epochs, first_step * batch, anew)
    load = _loader(examples, config)
    vertical, horizontal = config.data.flip_vertical, config.data.flip_horizontal
    flips = (*(vertical,) * (len(config.shape) - 1), horizontal)
    key = derive_seed(seed, "multiplanar_unet/augmentation")

    def example(index: tf.Tensor, position: tf.Tensor) -> Example:
        image, label, fill = load(index, position)
        if training and config.augmentation.enabled:
            own = tf.bitwise.bitwise_xor(index, tf.constant(key, tf.int64))
            image, label = augment(image, label, fill, own, config.augmentation, flips)
        return {"image": image[..., tf.newaxis], "label": label, "seed": index}

    stream = order.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    whole = training and (epochs is None or count >= batch)
    return stream.batch(batch, drop_remainder=whole).prefetch(tf.data.AUTOTUNE)


def _loader(examples: PlaneSet | DrawnPlanes, config: MultiPlanarUNetConfig) -> Callable[..., Any]:
    """(index, position) → image float32, codes uint8, fill float32."""
    if isinstance(examples, PlaneSet):
        image, label, fill = (tf.constant(values) for values in (examples.image, examples.label, examples.fill))
        return lambda _, position: (tf.gather(image, position), tf.gather(label, position), tf.gather(fill, position))
    drawn = examples

    def load(index: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, label, fill = tf.numpy_function(
            lambda i: drawn.example(int(i)), [index], [tf.float32, tf.uint8, tf.float32], stateful=False
        )
        return tf.ensure_shape(image, config.shape), tf.ensure_shape(label, config.shape), tf.ensure_shape(fill, [])

    return load
