"""A memory of generated images, of which discriminators are shown some again."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.ops import random


class ReplayBuffer(tf.keras.layers.Layer):
    """The last fakes, of which discriminators are shown some again (Shrivastava et al., arXiv:1612.07828, section 2.3).

    A new fake fills an empty place, and is handed on; when all are full it is handed on with probability one half, else it takes
    the place of an earlier one, which is handed on instead. Each replica has a buffer of its own.

    Args:
        capacity: places (50).
        shape: of one image.
    """

    def __init__(self, capacity: int, shape: list[int], **kwargs: Any):
        super().__init__(dtype=tf.float32, **kwargs)
        self.capacity = capacity
        common: dict[str, Any] = {
            "trainable": False,
            "experimental_autocast": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        # half precision is finer than the 256 levels of the images and takes half the memory
        self.images = self.add_weight(name="images", shape=[capacity, *shape], dtype=tf.float16, initializer="zeros", **common)
        self.filled = self.add_weight(name="filled", shape=[], dtype=tf.int64, initializer="zeros", **common)
        self.built = True

    def call(self, fakes: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Fakes float32 [B, …], which are put in one after the other, and seeds int64 [B] → what to show, float32 [B, …]."""
        numbers = random.uniform(seeds, (2,), f"replay {self.name}")
        batch = tf.shape(fakes)[0]
        capacity = tf.constant(self.capacity, tf.int64)

        def step(index: tf.Tensor, images: tf.Tensor, filled: tf.Tensor, shown: tf.TensorArray) -> tuple[Any, ...]:
            fake = tf.cast(fakes[index], tf.float16)
            full = filled >= capacity
            drawn = tf.minimum(tf.cast(numbers[index, 0] * self.capacity, tf.int64), capacity - 1)
            place = tf.where(full, drawn, filled)
            swap = full & (numbers[index, 1] < 0.5)
            shown = shown.write(index, tf.where(swap, images[place], fake))
            kept = tf.where(~full | swap, fake, images[place])
            images = tf.tensor_scatter_nd_update(images, [[place]], [kept])
            return index + 1, images, tf.minimum(filled + 1, capacity), shown

        _, images, filled, shown = tf.while_loop(
            lambda index, *_: index < batch,
            step,
            (
                tf.constant(0),
                tf.convert_to_tensor(self.images),
                tf.convert_to_tensor(self.filled),
                tf.TensorArray(tf.float16, batch),
            ),
        )
        self.images.assign(images)
        self.filled.assign(filled)
        return tf.cast(tf.ensure_shape(shown.stack(), fakes.shape), tf.float32)
