"""What a discriminator is told of a batch's variety."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class MinibatchDeviation(tf.keras.layers.Layer):
    """Appends a channel with the standard deviation over a group of samples, averaged over features and pixels.

    Source: Karras et al., arXiv:1710.10196, section 3, in groups as its code has it; here a group is of neighbours in the batch, so
    that replicas that share a batch out by whole groups compute what one device does. In float32.

    Args:
        group_size: samples in a group; a smaller batch is one group, a larger one must be a multiple of it.
    """

    def __init__(self, group_size: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        self.group_size = group_size

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → [B, H, W, C + 1], same dtype.

        Raises:
            InvalidArgumentError: the batch cannot be divided into groups.
        """
        batch, height, width = tf.shape(x)[0], x.shape[1], x.shape[2]
        size = tf.minimum(self.group_size, batch)
        message = f"the batch must be a multiple of the {self.group_size} samples of a group, or smaller"
        with tf.control_dependencies([tf.debugging.assert_equal(batch % size, 0, message)]):
            grouped = tf.reshape(tf.cast(x, tf.float32), [-1, size, height, width, x.shape[-1]])
        centred = grouped - tf.reduce_mean(grouped, 1, keepdims=True)
        deviation = tf.sqrt(tf.reduce_mean(centred * centred, 1) + 1e-8)  # a root has no slope at 0
        of_group = tf.reduce_mean(deviation, [1, 2, 3])
        channel = tf.broadcast_to(tf.repeat(of_group, size)[:, tf.newaxis, tf.newaxis, tf.newaxis], [batch, height, width, 1])
        return tf.concat([x, tf.cast(channel, x.dtype)], -1)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """One channel more."""
        shape = tf.TensorShape(input_shape)
        return shape[:-1].concatenate(shape[-1] + 1)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "group_size": self.group_size}
