"""Deep convolutional GAN (Radford et al., arXiv:1511.06434) of any size whose factors are 2 and 3 above a small start."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed, xavier_normal
from medsynth_tf.layers.normalization import BatchNormalization

INITIALISERS = ("xavier", "n002")
_STARTS = (4, 5, 6, 7)  # the base's 4 where it fits
_KERNELS = {2: 4, 3: 5}  # by stride: padded by one pixel on each side, they scale by the stride exactly
_MOST_DISCRIMINATOR_FILTERS = 512


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a side is reached: a map of `start` pixels, then enlarged by each of `strides`."""

    start: int
    strides: tuple[int, ...]


def plan(size: int) -> Plan:
    """The start kernel and the steps of a side: 64 is 4·2·2·2·2 (the DCGAN paper's), 360 is 5·3·3·2·2·2.

    The generator goes through the strides from first to last, the discriminator from last to first.

    Raises:
        ValueError: no start of 4 to 7 pixels times twos and threes gives the size.
    """
    for start in _STARTS:
        if size % start:
            continue
        rest, strides = size // start, []
        for factor in (3, 2):
            while rest % factor == 0:
                rest //= factor
                strides.append(factor)
        if rest == 1 and strides:
            return Plan(start, tuple(strides))
    raise ValueError(f"image_size = {size}: must be 4, 5, 6 or 7 times twos and threes, such as 32, 64, 96, 128, 256 or 360")


def _kernel(initialiser: str, seed: int, name: str) -> tf.keras.initializers.Initializer:
    if initialiser == "xavier":
        return xavier_normal(seed, name, gain=1.0)
    if initialiser == "n002":
        return tf.keras.initializers.RandomNormal(0.0, 0.02, seed=layer_seed(seed, name))
    raise ValueError(f"initialiser = '{initialiser}': expected one of {', '.join(INITIALISERS)}")


def _norm(initialiser: str, seed: int, name: str) -> BatchNormalization:
    scale = "ones" if initialiser == "xavier" else tf.keras.initializers.RandomNormal(1.0, 0.02, seed=layer_seed(seed, name))
    return BatchNormalization(gamma_initializer=scale, name=name)


class DCGANGenerator(tf.keras.Model):
    """Latent vector to image: transposed convolutions with batch norm and ReLU, the last one with tanh alone; no biases.

    Args:
        image_size: side of the images, see `plan`.
        channels: of the images.
        filters: width of the last hidden map; each map before it is twice as wide.
        initialiser: 'xavier', normal with variance 2/(fan_in + fan_out); or 'n002', N(0, 0.02) with norm scales N(1, 0.02).
        seed: of the kernels.
    """

    def __init__(
        self, image_size: int, channels: int, filters: int = 64, initialiser: str = "xavier", seed: int = 0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        shape = plan(image_size)
        steps = len(shape.strides)
        self.convolutions, self.norms = [], []
        for index in range(steps + 1):
            name = f"deconv_{index}"
            last = index == steps
            stride = shape.strides[index - 1] if index else 1
            self.convolutions.append(
                tf.keras.layers.Conv2DTranspose(
                    channels if last else filters * 2 ** (steps - 1 - index),
                    _KERNELS[stride] if index else shape.start,
                    stride,
                    "same" if index else "valid",
                    use_bias=False,
                    kernel_initializer=_kernel(initialiser, seed, name),
                    name=name,
                )
            )
            if not last:
                self.norms.append(_norm(initialiser, seed, f"norm_{index}"))

    def call(self, latent: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, N] → float32 [B, S, S, channels] in [-1, 1]."""
        x = latent[:, tf.newaxis, tf.newaxis, :]
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.nn.relu(norm(convolution(x), training=training))
        return tf.tanh(tf.cast(self.convolutions[-1](x), tf.float32))


class DCGANDiscriminator(tf.keras.Model):
    """Image to one logit: convolutions with LeakyReLU 0.2, batch norm on all but the first and last; no biases.

    Args:
        image_size, initialiser, seed: as for the generator.
        filters: width of the first map; each further one is twice as wide, up to 512.
    """

    def __init__(self, image_size: int, filters: int = 64, initialiser: str = "xavier", seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        shape = plan(image_size)
        self.convolutions: list[tf.keras.layers.Layer] = []
        self.norms: list[tf.keras.layers.Layer | None] = []
        for index, stride in enumerate(reversed(shape.strides)):
            name = f"conv_{index}"
            self.convolutions.append(
                tf.keras.layers.Conv2D(
                    min(filters * 2**index, max(filters, _MOST_DISCRIMINATOR_FILTERS)),
                    _KERNELS[stride],
                    stride,
                    "same",
                    use_bias=False,
                    kernel_initializer=_kernel(initialiser, seed, name),
                    name=name,
                )
            )
            self.norms.append(_norm(initialiser, seed, f"norm_{index}") if index else None)
        self.score = tf.keras.layers.Conv2D(
            1,
            shape.start,
            use_bias=False,
            kernel_initializer=_kernel(initialiser, seed, "score"),
            dtype=tf.float32,
            name="score",
        )

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, S, S, C] → logits float32 [B]."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms):
            x = convolution(x)
            if norm is not None:
                x = norm(x, training=training)
            x = tf.nn.leaky_relu(x, 0.2)
        return tf.reshape(self.score(x), [-1])
