"""The network that tells synthetic from real images, in whose features generators are compared."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed

BLOCKS = 4
SLOPE = 0.2


class TwoSampleCNN(tf.keras.Model):
    """Four blocks of two 3×3 convolutions and a max-pooling, twice as wide in each, then a dense layer of features and one logit.

    Source: Tronchin et al., "Evaluating GANs in Medical Imaging", section 4. LeakyReLU 0.2, Glorot uniform, neither norm nor dropout.
    The paper leaves the first width and padding open: 32 (the first author's earlier code) and 'same'.

    Args:
        width: filters of the first block.
        features: units of the feature layer.
        seed: of all kernels.
    """

    def __init__(self, width: int = 32, features: int = 128, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)

        def start(name: str) -> tf.keras.initializers.Initializer:
            return tf.keras.initializers.GlorotUniform(layer_seed(seed, name))

        self.convolutions = [
            tf.keras.layers.Conv2D(width * 2**block, 3, padding="same", kernel_initializer=start(f"{block}/{part}"))
            for block in range(BLOCKS)
            for part in range(2)
        ]
        self.embedding = tf.keras.layers.Dense(features, kernel_initializer=start("features"))
        self.score = tf.keras.layers.Dense(1, kernel_initializer=start("score"))

    def call(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """[B, H, W, C] in [0, 1], sides at least 16 → "features" [B, F] before their activation, "logit" [B] that it is synthetic."""
        x = images
        for index, convolution in enumerate(self.convolutions):
            x = tf.nn.leaky_relu(convolution(x), SLOPE)
            if index % 2:
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
        features = self.embedding(x)
        return {"features": features, "logit": self.score(tf.nn.leaky_relu(features, SLOPE))[:, 0]}
