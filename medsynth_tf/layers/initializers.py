"""Seeded initialisers. Each layer needs an object of its own: one shared by two layers of equal shape gives them equal weights."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.seeds import derive_seed


def xavier_normal(seed: int, name: str, gain: float = 0.02) -> tf.keras.initializers.Initializer:
    """Normal with standard deviation gain·√(2/(fan_in + fan_out)); the gain is pix2pixHD's and SPADE's 0.02."""
    return tf.keras.initializers.VarianceScaling(
        scale=gain**2, mode="fan_avg", distribution="untruncated_normal", seed=layer_seed(seed, name)
    )


def layer_seed(seed: int, name: str) -> int:
    """The seed of the part called `name`, in the range Keras takes."""
    return derive_seed(seed, name) % (2**31 - 1)


def torch_uniform(fan_in: int, seed: int, name: str) -> tf.keras.initializers.Initializer:
    """U(±1/√fan_in), PyTorch's default for weights and biases of dense and convolutional layers.

    Args:
        fan_in: inputs that one output sums over; of transposed convolutions PyTorch takes kernel area times *output* channels.
        seed, name: as for `layer_seed`.
    """
    limit = fan_in**-0.5
    return tf.keras.initializers.RandomUniform(-limit, limit, layer_seed(seed, name))
