"""Patch discriminators at several scales (Wang et al., arXiv:1711.11585; Park et al., arXiv:1903.07291, appendix A)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed, xavier_normal
from medsynth_tf.layers.normalization import InstanceNormalization, SpectralConv2D
from medsynth_tf.ops.resize import halve_by_average


class PatchDiscriminator(tf.keras.Model):
    """4×4 convolutions padded by 2: F/2, 2F/2, 4F/2, 8F/1, 1/1 with LeakyReLU 0.2; spectral and instance norm on the inner ones.

    Padding is explicit, since "same" padding is not symmetric for even kernels.

    Args:
        filters: F, width of the first layer (64); widths are capped at 8F (512).
        layers: number of convolutions before the score (4).
        seed: of the kernels.
    """

    def __init__(self, filters: int = 64, layers: int = 4, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.convolutions: list[tf.keras.layers.Layer] = []
        self.norms: list[tf.keras.layers.Layer | None] = []
        for index in range(layers):
            stride = 2 if index < layers - 1 else 1
            width = filters * min(2**index, 8)
            name = f"conv_{index}"
            common: dict[str, Any] = {"kernel_initializer": xavier_normal(seed, name), "name": name}
            if index == 0:
                self.convolutions.append(tf.keras.layers.Conv2D(width, 4, stride, "valid", **common))
                self.norms.append(None)
            else:  # instance norm removes a bias, so there is none
                spectral = SpectralConv2D(width, 4, stride, "valid", use_bias=False, seed=layer_seed(seed, name), **common)
                self.convolutions.append(spectral)
                self.norms.append(InstanceNormalization(name=f"norm_{index}"))
        self.score = tf.keras.layers.Conv2D(1, 4, 1, "valid", kernel_initializer=xavier_normal(seed, "score"), name="score")

    def call(self, x: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """[B, H, W, C] → the outputs of all layers, the patch scores [B, h, w, 1] last."""
        outputs = []
        for convolution, norm in zip(self.convolutions, self.norms):
            x = _pad(x)
            x = convolution(x) if norm is None else norm(convolution(x, training=training))
            x = tf.nn.leaky_relu(x, 0.2)
            outputs.append(x)
        outputs.append(self.score(_pad(x)))
        return outputs


def _pad(x: tf.Tensor) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]])


class MultiscaleDiscriminator(tf.keras.Model):
    """The same patch discriminator, with weights of its own, on the input and on the input halved, halved again …

    Args:
        scales: number of discriminators (2).
        filters, layers, seed: as for PatchDiscriminator.
    """

    def __init__(self, scales: int = 2, filters: int = 64, layers: int = 4, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.discriminators = [
            PatchDiscriminator(filters, layers, layer_seed(seed, f"scale_{index}"), name=f"scale_{index}")
            for index in range(scales)
        ]

    def call(self, x: tf.Tensor, training: bool = False) -> list[list[tf.Tensor]]:
        """[B, H, W, C] → per scale, finest first, the list of that discriminator's outputs."""
        outputs = []
        for index, discriminator in enumerate(self.discriminators):
            x = x if index == 0 else halve_by_average(x)
            outputs.append(discriminator(x, training=training))
        return outputs
