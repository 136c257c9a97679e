"""Stage 1: label maps by grade, as an AC-GAN with adaptive discriminator augmentation; a Keras model with its own train step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.label_networks import LabelDiscriminator, LabelGenerator
from medsynth_tf.methods.translation.semantic_retina.label_training import AdversarialLabelModel, make_augmentation


class LabelGAN(AdversarialLabelModel):
    """Soft label maps from grades.

    Call it on {"grade": int [B], "seed": int64 [B]} for class probabilities [B, S, S, K], S = `label_generator.size`.

    Args:
        config: of the method.
    """

    def __init__(self, config: SemanticRetinaConfig, **kwargs: Any):
        settings, seed = config.label_generator, layer_seed(config.seed, "label_generator")
        generator = LabelGenerator(
            settings.size,
            config.label_channels,
            settings.grades,
            settings.latent_size,
            settings.generator_filters,
            settings.conditioning,
            settings.doublings,
            seed=layer_seed(seed, "generator"),
            name="generator",
        )
        discriminator = LabelDiscriminator(
            settings.grades,
            settings.discriminator_filters,
            settings.spectral_norm,
            settings.doublings,
            seed=layer_seed(seed, "discriminator"),
            name="discriminator",
        )
        generator({"latent": tf.keras.Input([settings.latent_size]), "grade": tf.keras.Input([], dtype=tf.int32)})
        discriminator(tf.keras.Input([settings.size, settings.size, config.label_channels]))
        super().__init__(config, generator, discriminator, make_augmentation(config), **kwargs)
