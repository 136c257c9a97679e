"""Stage 1 as a conditional StyleGAN that grows: a Wasserstein game with a gradient penalty, and mixed styles."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.adversarial import gradient_penalty, score_drift, wasserstein_critic
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.progressive_model import ProgressiveLevel, ProgressiveModel
from medsynth_tf.methods.translation.semantic_retina.style_networks import (
    STYLES_PER_LEVEL,
    StyleLabelDiscriminator,
    StyleLabelGenerator,
    noise_sizes,
)
from medsynth_tf.ops import random


class StyleLevel(ProgressiveLevel):
    """The two networks of StyleGAN at one resolution; arguments are `ProgressiveLevel`'s."""

    LOSSES: ClassVar[tuple[str, ...]] = (*ProgressiveLevel.LOSSES, "gradient_penalty", "drift")

    def draws(self, seeds: tf.Tensor, name: str, training: bool) -> dict[str, tf.Tensor]:
        """From seeds int64 [B]: "latent" [B, N] and "noise" [B, Σ noise_sizes(level)], float32; in training with style mixing also
        "other_latent" [B, N] and "crossover" int32 [B], which is beyond the last epilogue where nothing is mixed."""
        settings = self.config.label_generator
        drawn = super().draws(seeds, name, training)
        drawn["noise"] = random.normal(seeds, (sum(noise_sizes(self.level)),), f"{name}/noise")
        mixing = settings.style_gan.style_mixing
        if training and mixing > 0.0:
            drawn["other_latent"] = random.normal(seeds, (settings.latent_size,), f"{name}/other")
            numbers = random.uniform(seeds, (2,), f"{name}/mixing")
            count = STYLES_PER_LEVEL * (self.level + 1)
            crossover = 1 + tf.cast(tf.floor(numbers[:, 1] * (count - 1)), tf.int32)
            drawn["crossover"] = tf.where(numbers[:, 0] < mixing, crossover, count)
        return drawn

    def adversarial_losses(
        self, real: dict[str, tf.Tensor], fake: dict[str, tf.Tensor], seeds: tf.Tensor, use: str
    ) -> dict[str, tf.Tensor]:
        """The critic's Wasserstein loss, the gradient penalty between the planes that it saw, and the drift; without weights.

        What it saw was augmented before: nothing here differentiates the augmentation, which has no second derivative.
        """
        share = random.uniform(seeds, (1,), f"{use}/between")[:, 0]
        return {
            "discriminator": wasserstein_critic(real["score"], fake["score"]),
            "gradient_penalty": gradient_penalty(
                lambda planes: self.judged(planes, training=True)["score"][:, 0], real["planes"], fake["planes"], share
            ),
            "drift": score_drift(real["score"]),
        }

    def discriminator_objective(self, losses: dict[str, tf.Tensor]) -> tf.Tensor:
        """The weighted sum that the critic minimises."""
        settings = self.config.label_generator.style_gan
        weights = {"gradient_penalty": settings.gradient_penalty, "drift": settings.drift}
        return tf.add_n([weights.get(name, 1.0) * loss for name, loss in losses.items()])


class StyleLabelGAN(ProgressiveModel):
    """StyleGAN, conditional on the grade.

    Args:
        config: of the method.
    """

    level_class = StyleLevel
    generator: StyleLabelGenerator
    discriminator: StyleLabelDiscriminator

    def __init__(self, config: SemanticRetinaConfig, **kwargs: Any):
        settings, seed = config.label_generator, layer_seed(config.seed, "label_generator")
        generator = StyleLabelGenerator(
            settings.widths,
            config.label_channels,
            settings.grades,
            settings.latent_size,
            settings.style_gan.mapping_layers,
            settings.style_gan.mapping_learning_rate,
            settings.style_gan.truncation,
            seed=layer_seed(seed, "generator"),
            name="generator",
        )
        discriminator = StyleLabelDiscriminator(
            settings.widths,
            config.label_channels,
            settings.grades,
            settings.style_gan.minibatch_group,
            seed=layer_seed(seed, "discriminator"),
            name="discriminator",
        )
        super().__init__(config, generator, discriminator, **kwargs)
