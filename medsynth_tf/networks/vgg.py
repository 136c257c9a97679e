"""VGG19 features for perceptual losses, from a weights file that the user supplies; nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from medsynth_tf.core.errors import ConfigError

LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")  # relu1_1 … relu5_1
LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


class VGG19Features(tf.keras.Model):
    """relu1_1 … relu5_1 of VGG19 (Simonyan and Zisserman, arXiv:1409.1556), frozen.

    Args:
        weights_file: Keras HDF5 weights of VGG19 without its top.

    Raises:
        ConfigError: the file is missing or does not hold these weights.
    """

    def __init__(self, weights_file: str | Path, **kwargs: Any):
        super().__init__(**kwargs)
        if not Path(weights_file).is_file():
            raise ConfigError(f"perceptual weights file {weights_file} does not exist (expected VGG19 without top, Keras HDF5)")
        network = tf.keras.applications.VGG19(include_top=False, weights=None, input_shape=(None, None, 3))
        try:
            network.load_weights(weights_file)
        except (ValueError, OSError) as error:
            raise ConfigError(f"perceptual weights file {weights_file}: {error}") from error
        self.features = tf.keras.Model(network.input, [network.get_layer(name).output for name in LAYERS])
        self.trainable = False

    def call(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Images [B, H, W, 3] float32 in [-1, 1] → five feature maps."""
        pixels = (tf.cast(images, tf.float32) + 1.0) * 127.5
        return self.features(tf.keras.applications.vgg19.preprocess_input(pixels))


def perceptual_loss(network: VGG19Features, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Σ w_i · mean |φ_i(real) - φ_i(fake)| with weights 1/32, 1/16, 1/8, 1/4, 1 (pix2pixHD, SPADE), float32 scalar."""
    targets = network(real)
    return tf.add_n(
        [w * tf.reduce_mean(tf.abs(tf.stop_gradient(t) - f)) for w, t, f in zip(LAYER_WEIGHTS, targets, network(fake))]
    )
