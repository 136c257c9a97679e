"""Vessel maps of photographs, the same in the data pipeline and in what is served: a fixed filter, or a U-Net of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig, VesselConfig
from medsynth_tf.networks.unet import UNet2D
from medsynth_tf.ops.vesselness import vesselness


class VesselFilter(tf.keras.layers.Layer):
    """Photographs → vessel maps in [0, 1] by CLAHE of the green channel and Frangi's filter; nothing is learned.

    Args:
        config: scales, contrast limit and percentiles.
    """

    def __init__(self, config: VesselConfig, **kwargs: Any):
        super().__init__(dtype=tf.float32, **kwargs)
        self.config = config

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """uint8 [B, S, S, 3] → float32 [B, S, S, 1]."""
        return vesselness(images, self.config.sigmas, self.config.clip_limit, self.config.stretch)


class VesselNetwork(tf.keras.Model):
    """Photographs → probabilities of vessel by the user's U-Net, which is not trained further.

    Args:
        config: the file of weights and the widths.
        size: S.

    Raises:
        ConfigError: there is no such file, or it holds the weights of another network.
    """

    def __init__(self, config: VesselConfig, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.network = UNet2D(2, config.unet_widths, name="unet")
        self.network(tf.keras.Input([size, size, 3]))
        path = Path(str(config.weights))
        if not path.is_file():
            raise ConfigError(f"vessels.weights: there is no file {path} (expected weights of UNet2D with two classes, HDF5)")
        try:
            self.network.load_weights(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"vessels.weights {path}: not those of this U-Net: {' '.join(str(error).split())}") from error
        self.trainable = False

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """uint8 [B, S, S, 3] → float32 [B, S, S, 1]."""
        logits = self.network(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False)
        return tf.nn.softmax(logits)[..., 1:]


def make_extractor(config: TVPSConfig) -> tf.keras.layers.Layer | None:
    """The configured way from photographs to vessel maps; None where the record's mask has them, or none are needed."""
    if not config.translates or config.vessels.source == "mask":
        return None
    if config.vessels.source == "network":
        return VesselNetwork(config.vessels, config.image_size, name="vessel_network")
    return VesselFilter(config.vessels, name="vessel_filter")


def to_bytes(maps: tf.Tensor) -> tf.Tensor:
    """Vessel maps in [0, 1] as they are batched and cached, uint8 0 … 255."""
    return tf.cast(tf.round(255.0 * tf.clip_by_value(maps, 0.0, 1.0)), tf.uint8)
