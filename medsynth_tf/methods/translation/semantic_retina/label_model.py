"""Stage 1: label maps by grade, as an AC-GAN with adaptive discriminator augmentation; a Keras model with its own train step."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from medsynth_tf.layers.adaptive_augmentation import AdaptiveAugmentation
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.adversarial import hinge_discriminator, hinge_generator
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.schedules import LinearDecay
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.label_networks import LabelDiscriminator, LabelGenerator
from medsynth_tf.ops import labels as label_ops
from medsynth_tf.ops import random


class LabelGAN(Optimisation, tf.keras.Model):
    """Soft label maps from grades.

    Call it on {"grade": int [B], "seed": int64 [B]} for class probabilities [B, S, S, K], S = `label_generator.size`.

    Args:
        config: of the method.
    """

    config: SemanticRetinaConfig
    LOSSES: ClassVar[tuple[str, ...]] = ("generator", "discriminator", "class_real", "class_fake", "augmentation")

    def __init__(self, config: SemanticRetinaConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        settings, seed = config.label_generator, layer_seed(config.seed, "label_generator")
        self.distribute_reduction_method = "first"  # the metrics are means over all replicas already
        self.generator = LabelGenerator(
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
        self.discriminator = LabelDiscriminator(
            settings.grades,
            settings.discriminator_filters,
            settings.spectral_norm,
            settings.doublings,
            seed=layer_seed(seed, "discriminator"),
            name="discriminator",
        )
        self.augmentation: AdaptiveAugmentation | None = None
        if settings.augmentation.enabled:
            background = [0.0] * config.label_channels
            # the authors' code fills with channel 0, the retina, though its comment says background
            background[-1 if settings.augmentation.fill == "background" else 0] = 1.0
            self.augmentation = AdaptiveAugmentation(
                background,
                settings.augmentation.target,
                settings.augmentation.step,
                settings.augmentation.maximum,
                settings.augmentation.fixed_probability,
                name="augmentation",
            )
        self.generator({"latent": tf.keras.Input([settings.latent_size]), "grade": tf.keras.Input([], dtype=tf.int32)})
        self.discriminator(tf.keras.Input([settings.size, settings.size, config.label_channels]))
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self.LOSSES}
        self.built = True

    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with the paper's two Adam optimisers; the discriminator's gradient is clipped to a small norm."""
        settings = self.config.label_generator

        def adam(rate: float, clip_norm: float | None) -> tf.keras.optimizers.Optimizer:
            return self.with_loss_scale(
                tf.keras.optimizers.Adam(rate, settings.beta_1, settings.beta_2, global_clipnorm=clip_norm)
            )

        self.generator_optimizer = adam(settings.generator_learning_rate, None)
        self.discriminator_optimizer = adam(settings.discriminator_learning_rate, settings.discriminator_clip_norm)
        kwargs.setdefault("jit_compile", False)  # XLA has no projective transform
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def schedule(self) -> LinearDecay:
        """Both learning rates, constant and then falling to zero over `decay_epochs`, so that the amounts that the players
        chase each other over come to rest. A callback of `fit`; compile first."""
        settings = self.config.label_generator
        rates = [
            (self.generator_optimizer, settings.generator_learning_rate),
            (self.discriminator_optimizer, settings.discriminator_learning_rate),
        ]
        return LinearDecay(rates, settings.epochs, settings.decay_epochs)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"grade": int [B], "seed": int64 [B]} → class probabilities [B, S, S, K] float32."""
        latent = random.normal(inputs["seed"], (self.config.label_generator.latent_size,), "label")
        return self.generator({"latent": latent, "grade": inputs["grade"]}, training=training)

    # -- train step ---------------------------------------------------------------------------------------------------------
    def fake(self, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """A fresh generated batch: {"planes": [B, S, S, K], "grade": int32 [B]}, grades uniform; `use` names the draw."""
        settings = self.config.label_generator
        latent = random.normal(seeds, (settings.latent_size,), f"{use}/latent")
        draws = random.uniform(seeds, (1,), f"{use}/grade")[:, 0]
        grade = tf.cast(tf.floor(draws * settings.grades), tf.int32)
        return {"planes": self.generator({"latent": latent, "grade": grade}, training=True), "grade": grade}

    def judge(self, planes: tf.Tensor, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """The discriminator's answers on augmented planes."""
        if self.augmentation is not None:
            planes = self.augmentation(planes, seeds, use)
        return self.discriminator(planes, training=True)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`discriminator_steps` of the one player, then `generator_steps` of the other, each on noise and grades of its own.

        Args:
            batch: {"label_map": uint8 [B, S, S], "grade": int [B], "seed": int64 [B]}.
        """
        settings = self.config.label_generator
        real = label_ops.one_hot(batch["label_map"], self.config.label_channels)
        losses: dict[str, tf.Tensor] = {}
        for step in range(settings.discriminator_steps):
            losses |= self.discriminator_step(real, batch["grade"], batch["seed"], f"discriminator_{step}")
        for step in range(settings.generator_steps):
            losses |= self.generator_step(batch["seed"], f"generator_{step}")
        losses["augmentation"] = self.augmentation.probability if self.augmentation is not None else tf.constant(0.0)
        return recorded(self.loss_means, losses)

    def discriminator_step(self, real: tf.Tensor, grade: tf.Tensor, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """Hinge loss and the class term on real and fake; then the augmentation adapts."""
        fake = self.fake(seeds, use)
        with tf.GradientTape() as tape:
            on_real = self.judge(real, seeds, f"{use}/real")  # in batches of their own, for the sake of batch norm
            on_fake = self.judge(tf.stop_gradient(fake["planes"]), seeds, f"{use}/fake")
            losses = {
                "discriminator": hinge_discriminator(on_real["score"], on_fake["score"]),
                "class_real": cross_entropy(on_real["grade"], grade),
                "class_fake": cross_entropy(on_fake["grade"], fake["grade"]),
            }
            loss = self.replica_loss(tf.add_n(list(losses.values())), self.discriminator_optimizer)
        variables = self.discriminator.trainable_variables
        self.apply(self.discriminator_optimizer, tape.gradient(loss, variables), variables)
        if self.augmentation is not None:
            self.augmentation.update(on_real["score"])
        return losses

    def generator_step(self, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """-E[D(G)] and, as in AC-GAN, the class term, which the authors' code leaves out (weight 0)."""
        with tf.GradientTape() as tape:
            fake = self.fake(seeds, use)
            on_fake = self.judge(fake["planes"], seeds, use)
            adversarial = hinge_generator(on_fake["score"])
            class_loss = cross_entropy(on_fake["grade"], fake["grade"])
            objective = adversarial + self.config.label_generator.generator_class_loss * class_loss
            loss = self.replica_loss(objective, self.generator_optimizer)
        variables = self.generator.trainable_variables
        self.apply(self.generator_optimizer, tape.gradient(loss, variables), variables)
        return {"generator": adversarial}
