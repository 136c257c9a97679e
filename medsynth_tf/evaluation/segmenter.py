"""A judge for images that come with masks: a small U-Net that learned from real pairs alone."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.joint_config import JudgeConfig
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.networks.unet import UNet2D


class Segmenter:
    """Trained on construction, the same for the same data and seed.

    Args:
        images: uint8 [N, S, S, 3].
        masks: uint8 [N, S, S] of codes 0 … classes - 1; others (255, outside) count as 0.
        classes: how many codes there are.
        settings: of the judge.
        seed: of weights, order and flips.
    """

    def __init__(self, images: np.ndarray, masks: np.ndarray, classes: int, settings: JudgeConfig, seed: int = 0):
        self.classes = classes
        self.network = UNet2D(classes, settings.widths, layer_seed(seed, "judge"))
        self.network(tf.keras.Input(images.shape[1:]))
        variables = self.network.trainable_variables
        optimizer = tf.keras.optimizers.Adam(settings.learning_rate)
        optimizer.build(variables)
        data_images, data_masks = tf.constant(images), tf.constant(np.where(masks < classes, masks, 0).astype(np.uint8))

        @tf.function
        def step(chosen: tf.Tensor, flipped: tf.Tensor) -> None:
            x, y = _scaled(tf.gather(data_images, chosen)), tf.gather(data_masks, chosen)
            x = tf.where(flipped[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(x, [2]), x)
            y = tf.where(flipped[:, tf.newaxis, tf.newaxis], tf.reverse(y, [2]), y)
            with tf.GradientTape() as tape:
                loss = cross_entropy(self.network(x, training=True), y)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

        rng = numpy_generator(derive_seed(seed, "judge's data"))
        for _ in range(settings.steps):
            chosen = rng.integers(0, len(images), settings.batch_size)
            step(tf.constant(chosen), tf.constant(rng.random(settings.batch_size) < 0.5))
        self._predict = tf.function(lambda x: tf.argmax(self.network(_scaled(x)), -1, output_type=tf.int32))

    def __call__(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Images uint8 [N, S, S, 3] → codes uint8 [N, S, S]."""
        parts = [self._predict(tf.constant(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
        return np.concatenate([part.numpy().astype(np.uint8) for part in parts])


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 127.5 - 1.0
