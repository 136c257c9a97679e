"""A VGG whose last hidden layer is clustered (Simonyan and Zisserman, arXiv:1409.1556; Caron et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.adaptive_pooling import AdaptiveAveragePooling2D
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.ops.random import uniform

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG-16's convolutions; a max-pooling of 2×2 follows each group."""
DENSE_DEVIATION = 0.01
"""Standard deviation of dense kernels at the start, as in DeepCluster."""


class ClusteringNetwork(tf.keras.Model):
    """Convolutions with batch norm and ReLU, adaptive average pooling, dense layers; what comes out is before its ReLU.

    Dropout stands before the last dense layer, as in DeepCluster. Convolutions begin with N(0, 2/(k²·filters)), dense layers with
    N(0, `dense_deviation`²), biases with 0.

    Args:
        stages: channels of the convolutions of each group.
        pool_size: P, bins along a side of the pooled map.
        hidden: units of the dense layers; the last one's are the features.
        dropout: rate.
        dense_deviation: None for √(2 / inputs).
        batch_momentum: of the moving statistics (0.9 is PyTorch's 0.1).
        seed: of all kernels.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        pool_size: int,
        hidden: Sequence[int],
        dropout: float,
        dense_deviation: float | None = DENSE_DEVIATION,
        batch_momentum: float = 0.9,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.groups: list[list[tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]]] = []
        for i, group in enumerate(stages):
            layers = []
            for j, width in enumerate(group):
                he = tf.keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", layer_seed(seed, f"{i}_{j}"))
                convolution = tf.keras.layers.Conv2D(
                    width, 3, padding="same", kernel_initializer=he, name=f"convolution_{i}_{j}"
                )
                norm = BatchNormalization(momentum=batch_momentum, epsilon=1e-5, name=f"norm_{i}_{j}")
                layers.append((convolution, norm))
            self.groups.append(layers)
        self.pool = tf.keras.layers.MaxPool2D(2)
        self.adaptive_pool = AdaptiveAveragePooling2D(pool_size)
        self.hidden = [dense(units, seed, f"dense_{i}", dense_deviation) for i, units in enumerate(hidden)]
        self.dropout = dropout

    def call(self, images: tf.Tensor, training: bool = False, seeds: tf.Tensor | None = None) -> tf.Tensor:
        """[B, H, W, C] → features [B, hidden[-1]]; in training with `seeds`, int64 [B], of each sample's dropout."""
        x = images
        for group in self.groups:
            for convolution, norm in group:
                x = tf.nn.relu(norm(convolution(x), training=training))
            x = self.pool(x)
        x = self.adaptive_pool(x)
        x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
        for layer in self.hidden[:-1]:
            x = tf.nn.relu(layer(x))
        if training and self.dropout:
            assert seeds is not None
            kept = uniform(seeds, (x.shape[-1],), "dropout") >= self.dropout
            x = tf.where(kept, x / (1.0 - self.dropout), tf.zeros([], x.dtype))
        return self.hidden[-1](x)


def dense(units: int, seed: int, name: str, deviation: float | None = DENSE_DEVIATION, **kwargs: Any) -> tf.keras.layers.Dense:
    """A dense layer with kernel N(0, deviation²), by default as DeepCluster's or, for None, N(0, 2 / inputs); bias 0."""
    kernel_seed = layer_seed(seed, name)
    if deviation is None:
        initializer = tf.keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", kernel_seed)
    else:
        initializer = tf.keras.initializers.RandomNormal(0.0, deviation, kernel_seed)
    return tf.keras.layers.Dense(units, kernel_initializer=initializer, name=name, **kwargs)
