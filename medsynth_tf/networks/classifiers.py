"""Image classifiers: the backbones of `tf.keras.applications`, and a small one for small images and two CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.names import look_up
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization

_APPLICATIONS = {  # the network, and the preparation of pixels 0 … 255 that its ImageNet weights were trained with
    "resnet50": (tf.keras.applications.ResNet50, tf.keras.applications.resnet.preprocess_input),
    "resnet101": (tf.keras.applications.ResNet101, tf.keras.applications.resnet.preprocess_input),
    "resnet152": (tf.keras.applications.ResNet152, tf.keras.applications.resnet.preprocess_input),
    "vgg16": (tf.keras.applications.VGG16, tf.keras.applications.vgg16.preprocess_input),
    "inception_v3": (tf.keras.applications.InceptionV3, tf.keras.applications.inception_v3.preprocess_input),
}
BACKBONES = ("small", *_APPLICATIONS)


class SmallBackbone(tf.keras.Model):
    """Three times [Conv3×3, BatchNorm, ReLU, max-pool 2] with widths F, 2F, 4F.

    Args:
        filters: F.
        seed: of the kernels.
    """

    def __init__(self, filters: int = 16, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions = [
            tf.keras.layers.Conv2D(
                filters * 2**i,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=tf.keras.initializers.HeNormal(layer_seed(seed, f"conv_{i}")),
                name=f"conv_{i}",
            )
            for i in range(3)
        ]
        self.norms = [BatchNormalization(name=f"norm_{i}") for i in range(3)]

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """[B, H, W, C] → the maps of the three levels, after ReLU and before pooling."""
        maps: list[tf.Tensor] = []
        x = images
        for convolution, norm in zip(self.convolutions, self.norms):
            if maps:
                x = tf.nn.max_pool2d(x, 2, 2, "SAME")
            x = tf.nn.relu(norm(convolution(x), training=training))
            maps.append(x)
        return maps


class ImageClassifier(tf.keras.Model):
    """A backbone, global average pooling and a dense head. All variables exist after construction.

    Args:
        backbone: 'small', 'resnet50', 'resnet101', 'resnet152', 'vgg16' or 'inception_v3'.
        classes: K.
        channels: of the images; those of ImageNet weights have 3, one channel is repeated for them.
        filters: base width of 'small'.
        weights: a file of Keras weights without top (HDF5) for a backbone of `tf.keras.applications`; nothing is downloaded.
        seed: of all weights that are not from the file.

    Raises:
        ConfigError: weights for 'small', a file that is missing or holds other weights. UnknownNameError: no such backbone.
    """

    def __init__(
        self,
        backbone: str,
        classes: int,
        channels: int = 3,
        filters: int = 16,
        weights: str | Path | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.channels = channels
        self.preprocess = None
        if backbone == "small":
            if weights is not None:
                raise ConfigError("classifier weights: the backbone 'small' has none to be loaded from a file")
            self.network: tf.keras.Model = SmallBackbone(filters, layer_seed(seed, "backbone"), name="backbone")
            width = 4 * filters
        else:
            application, preprocess = look_up(_APPLICATIONS, backbone, "backbone")
            inputs = 3 if channels == 1 or weights is not None else channels
            self.network = application(include_top=False, weights=None, input_shape=(None, None, inputs))
            _seed_kernels(self.network, layer_seed(seed, "backbone"))
            if weights is not None:
                _load(self.network, backbone, weights)
            if inputs == 3:
                self.preprocess = preprocess
            width = self.network.output_shape[-1]
        self.head = tf.keras.layers.Dense(
            classes,
            kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, "head")),
            dtype=tf.float32,
            name="head",
        )
        self.head.build([None, width])
        if backbone == "small":
            self.network(tf.keras.Input([None, None, channels]))
        self.built = True

    def feature_maps(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """The backbone's maps, finest first: three for 'small', else the last one alone.

        Args:
            images: [B, H, W, C] float32 in [-1, 1].
            training: as for `call`.
        """
        if self.preprocess is not None:
            if images.shape[-1] == 1:
                images = tf.repeat(images, 3, axis=-1)
            images = self.preprocess((tf.cast(images, tf.float32) + 1.0) * 127.5)
        maps = self.network(images, training=training)
        return maps if isinstance(maps, list) else [maps]

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Images [B, H, W, C] float32 in [-1, 1] → {"features": pooled [B, F], "logits": [B, K]}, float32."""
        features = tf.reduce_mean(tf.cast(self.feature_maps(images, training)[-1], tf.float32), axis=[1, 2])
        return {"features": features, "logits": self.head(features)}


def _seed_kernels(network: tf.keras.Model, seed: int) -> None:
    """Draws each kernel anew (Glorot uniform, as they are): those of `tf.keras.applications` take no seed."""
    for index, layer in enumerate(network.layers):
        if getattr(layer, "kernel", None) is not None:
            layer.kernel.assign(tf.keras.initializers.GlorotUniform(layer_seed(seed, str(index)))(layer.kernel.shape))


def _load(network: tf.keras.Model, backbone: str, weights: str | Path) -> None:
    if not Path(weights).is_file():
        raise ConfigError(f"classifier weights: there is no file {weights} (expected {backbone} without top, Keras HDF5)")
    try:
        network.load_weights(weights)
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"classifier weights {weights}: not those of {backbone} without top: {message}") from error
