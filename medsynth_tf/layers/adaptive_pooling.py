"""Average pooling to a given size, from any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def pooling_matrix(size: int, bins: int) -> np.ndarray:
    """float32 [bins, size]: row i averages elements ⌊i·size/bins⌋ … ⌈(i+1)·size/bins⌉ - 1."""
    matrix = np.zeros([bins, size], np.float32)
    for i in range(bins):
        start, stop = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class AdaptiveAveragePooling2D(tf.keras.layers.Layer):
    """Means over P×P bins that together cover the map, whatever its size; bins overlap where the size does not divide.

    Args:
        bins: P.
    """

    def __init__(self, bins: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.bins = bins

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → [B, P, P, C]; H and W must be known."""
        height, width = x.shape[1], x.shape[2]
        if height != self.bins:
            x = tf.einsum("ph,bhwc->bpwc", tf.constant(pooling_matrix(height, self.bins), x.dtype), x)
        if width != self.bins:
            x = tf.einsum("qw,bpwc->bpqc", tf.constant(pooling_matrix(width, self.bins), x.dtype), x)
        return x

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """[B, P, P, C]."""
        return tf.TensorShape([input_shape[0], self.bins, self.bins, input_shape[-1]])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "bins": self.bins}
