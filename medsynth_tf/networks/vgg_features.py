"""Features of a fixed VGG16 for style and content losses: weights of a local file, or a random stand-in. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.layers.initializers import layer_seed

VGG16_FILTERS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block
_IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


class VGG16Features(tf.keras.Model):
    """Outputs after ReLU of the first convolution of chosen blocks of VGG16 (Simonyan and Zisserman, arXiv:1409.1556), frozen, float32.

    One pass gives them all and ends at the last one chosen. Without a file the kernels are He-normal from a fixed seed: a stand-in
    whose features tell textures apart, at other scales than trained ones.

    Args:
        blocks: whose features are wanted, from 0, in ascending order.
        weights_file: Keras HDF5 weights of VGG16 without its top; None: the stand-in.
        filters: width of each block; with a file VGG16's own.
        pooling: between blocks; VGG16's own is 'max'.
        input_size: side that images are resized to, bilinearly; None: they are taken as they are.

    Raises:
        ConfigError: the file is missing or does not hold these weights, or the widths are not those of the file.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        weights_file: str | Path | None = None,
        filters: Sequence[int] = VGG16_FILTERS,
        pooling: Literal["max", "average"] = "max",
        input_size: int | None = 224,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.blocks, self.pooling, self.input_size = list(blocks), pooling, input_size
        self.convolutions: list[list[tf.keras.layers.Conv2D]] = []
        channels = 3
        for block, width in enumerate(filters[: self.blocks[-1] + 1]):
            count = 1 if block == self.blocks[-1] else _CONVOLUTIONS[block]
            layers = []
            for number in range(count):
                name = f"block{block + 1}_conv{number + 1}"
                kernel = tf.keras.initializers.HeNormal(layer_seed(0, f"stand-in {name}"))
                layer = tf.keras.layers.Conv2D(
                    width, 3, padding="same", activation="relu", kernel_initializer=kernel, dtype=tf.float32, name=name
                )
                layer.build([None, None, None, channels])
                layers.append(layer)
                channels = width
            self.convolutions.append(layers)
        if weights_file is not None:
            self._load(Path(weights_file), tuple(filters))
        self.trainable = False
        self.built = True

    def _load(self, file: Path, filters: tuple[int, ...]) -> None:
        if not file.is_file():
            raise ConfigError(f"perceptual weights file {file} does not exist (expected VGG16 without top, Keras HDF5)")
        if filters != VGG16_FILTERS[: len(filters)]:
            raise ConfigError(f"perceptual filters {filters} with a weights file: VGG16's are {VGG16_FILTERS}")
        network = tf.keras.applications.VGG16(include_top=False, weights=None, input_shape=(None, None, 3))
        try:
            network.load_weights(file)
        except (ValueError, OSError) as error:
            raise ConfigError(f"perceptual weights file {file}: {error}") from error
        for layer in (layer for block in self.convolutions for layer in block):
            layer.set_weights(network.get_layer(layer.name).get_weights())

    def prepare(self, images: tf.Tensor) -> tf.Tensor:
        """Grey images [B, H, W, 1] in [0, 1] → what the network sees: three equal channels, resized, times 255, less the mean of
        ImageNet in the order blue, green, red; float32 [B, S, S, 3]."""
        images = tf.repeat(tf.cast(images, tf.float32), 3, axis=-1)  # equal channels: turning RGB to BGR changes nothing
        if self.input_size is not None:
            images = tf.image.resize(images, [self.input_size, self.input_size])
        return 255.0 * images - tf.constant(_IMAGENET_MEAN_BGR)

    def call(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Grey images [B, H, W, 1] in [0, 1] → the chosen features, each float32 [B, h, w, C]."""
        x, found = self.prepare(images), []
        for block, layers in enumerate(self.convolutions):
            if block:
                pool = tf.nn.max_pool2d if self.pooling == "max" else tf.nn.avg_pool2d
                x = pool(x, 2, 2, "VALID")
            for number, layer in enumerate(layers):
                x = layer(x)
                if number == 0 and block in self.blocks:
                    found.append(x)
        return found
