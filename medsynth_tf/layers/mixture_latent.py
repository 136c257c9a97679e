"""A latent vector from a mixture of Gaussians: its parameters as heads of a layer, and samples with a hard component."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.ops import random

ANY_COMPONENT = -1


@dataclasses.dataclass(frozen=True)
class MixtureParameters:
    """Σ_k s_k N(μ_k, diag σ_k²), one mixture a sample.

    Attributes:
        log_weights: log s, float32 [B, K]; exp of it sums to 1.
        mean: μ, float32 [B, K, D].
        log_variance: log σ², float32 [B, K, D].
    """

    log_weights: tf.Tensor
    mean: tf.Tensor
    log_variance: tf.Tensor


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class MixtureHeads(tf.keras.layers.Layer):
    """Three dense heads that make a mixture's parameters from features, in float32.

    Args:
        components: K.
        size: D, length of the latent vector.
        log_variance_range: lowest and highest log σ²; beyond them the gradient is 0.
        seed: of the kernels.
    """

    def __init__(
        self, components: int, size: int, log_variance_range: tuple[float, float] = (-10.0, 10.0), seed: int = 0, **kwargs: Any
    ):
        super().__init__(dtype=tf.float32, **kwargs)
        self.components, self.size, self.seed = components, size, seed
        self.log_variance_range = tuple(log_variance_range)
        self.heads = {
            name: tf.keras.layers.Dense(
                units,
                kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, name)),
                dtype=tf.float32,
                name=name,
            )
            for name, units in (
                ("weights", components),
                ("mean", components * size),
                ("log_variance", components * size),
            )
        }

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the heads' variables."""
        for head in self.heads.values():
            head.build(input_shape)
        super().build(input_shape)

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """[B, N] → log s [B, K], μ [B, K, D], log σ² [B, K, D]."""
        shape = [-1, self.components, self.size]
        low, high = self.log_variance_range
        return (
            tf.nn.log_softmax(self.heads["weights"](features)),
            tf.reshape(self.heads["mean"](features), shape),
            tf.clip_by_value(tf.reshape(self.heads["log_variance"](features), shape), low, high),
        )

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {
            "components": self.components,
            "size": self.size,
            "log_variance_range": self.log_variance_range,
            "seed": self.seed,
        }
        return {**{key: value for key, value in super().get_config().items() if key != "dtype"}, **own}


def draw_component(log_weights: tf.Tensor, seeds: tf.Tensor, temperature: float = 1.0, gumbel_input: str = "log") -> tf.Tensor:
    """One-hot components by the straight-through Gumbel-softmax (Jang et al., arXiv:1611.01144).

    Forward it is exactly one-hot, with frequencies s; the gradient is that of softmax((log s + g)/τ).

    Args:
        log_weights: log s [B, K].
        seeds: int64 [B].
        temperature: τ.
        gumbel_input: 'log' for log s; 'reference' for s itself, as the authors' file has it: its frequencies are not s.

    Returns:
        float32 [B, K].
    """
    uniform = tf.maximum(random.uniform(seeds, (log_weights.shape[-1],), "component"), 1e-20)
    gumbel = -tf.math.log(-tf.math.log(uniform))
    logits = log_weights if gumbel_input == "log" else tf.exp(log_weights)
    soft = tf.nn.softmax((logits + gumbel) / temperature)
    hard = tf.one_hot(tf.argmax(soft, -1), log_weights.shape[-1])
    return tf.stop_gradient(hard) + (soft - tf.stop_gradient(soft))


def sample_latent(
    mixture: MixtureParameters,
    seeds: tf.Tensor,
    *,
    temperature: float = 1.0,
    gumbel_input: str = "log",
    component: tf.Tensor | None = None,
    most_likely: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """z = Σ_k ω_k μ_k + exp(½ Σ_k ω_k log σ_k²) ⊙ ε.

    Args:
        mixture: the parameters.
        seeds: int64 [B], one per sample.
        temperature, gumbel_input: as for `draw_component`.
        component: int [B], the component to take; -1 draws it. None: all are drawn.
        most_likely: the likeliest component and ε = 0.

    Returns:
        z float32 [B, D] and ω float32 [B, K].
    """
    count = mixture.log_weights.shape[-1]
    if most_likely:
        chosen = tf.one_hot(tf.argmax(mixture.log_weights, -1), count)
    else:
        chosen = draw_component(mixture.log_weights, seeds, temperature, gumbel_input)
    if component is not None:
        component = tf.cast(component, tf.int32)
        forced = tf.one_hot(component, count)
        chosen = tf.where((component == ANY_COMPONENT)[:, tf.newaxis], chosen, forced)
    mean = tf.einsum("bk,bkd->bd", chosen, mixture.mean)
    if most_likely:
        return mean, chosen
    log_variance = tf.einsum("bk,bkd->bd", chosen, mixture.log_variance)
    noise = random.normal(seeds, (mixture.mean.shape[-1],), "latent")
    return mean + tf.exp(0.5 * log_variance) * noise, chosen
