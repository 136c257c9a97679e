"""How stage 1 trains, whatever its networks: adversarial losses, class terms, augmentation, several steps of each player."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from medsynth_tf.layers.adaptive_augmentation import AdaptiveAugmentation
from medsynth_tf.losses.adversarial import hinge_discriminator, hinge_generator
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.schedules import LinearDecay
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.ops import labels as label_ops
from medsynth_tf.ops import random


def make_augmentation(config: SemanticRetinaConfig) -> AdaptiveAugmentation | None:
    """What stage 1's discriminator sees the maps through; None if `label_generator.augmentation.enabled` is false."""
    settings = config.label_generator.augmentation
    if not settings.enabled:
        return None
    background = [0.0] * config.label_channels
    # the authors' code fills with channel 0, the retina, though its comment says background
    background[-1 if settings.fill == "background" else 0] = 1.0
    return AdaptiveAugmentation(
        background, settings.target, settings.step, settings.maximum, settings.fixed_probability, name="augmentation"
    )


class AdversarialLabelModel(Optimisation, tf.keras.Model):
    """A generator of soft label maps by grade and its discriminator, which take turns.

    Call it on {"grade": int [B], "seed": int64 [B]} for class probabilities [B, S, S, K]. Subclasses override `draws`, `generated`,
    `judged`, `real_planes`, `standing` and the two lists of variables where their networks ask for more, and `adversarial_losses` and
    `discriminator_objective` where the game is another than that of hinge losses.

    Args:
        config: of the method.
        generator: {"latent": [B, N], "grade": int [B], …} → class probabilities [B, S, S, K]; all its variables made.
        discriminator: planes [B, S, S, K] → {"score": [B, 1], "grade": logits [B, grades]}; all its variables made.
        augmentation: of what the discriminator sees, or None.
    """

    config: SemanticRetinaConfig
    LOSSES: ClassVar[tuple[str, ...]] = ("generator", "discriminator", "class_real", "class_fake", "augmentation")

    def __init__(
        self,
        config: SemanticRetinaConfig,
        generator: tf.keras.Model,
        discriminator: tf.keras.Model,
        augmentation: AdaptiveAugmentation | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config = config
        self.distribute_reduction_method = "first"  # the metrics are means over all replicas already
        self.generator, self.discriminator, self.augmentation = generator, discriminator, augmentation
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
        self.generator_optimizer.build(self.generator_variables)
        self.discriminator_optimizer.build(self.discriminator_variables)

    @property
    def epochs(self) -> int:
        """Of its training."""
        return self.config.label_generator.epochs

    @property
    def batch_size(self) -> int:
        """Of its training."""
        return self.config.label_generator.batch_size

    def schedule(self) -> LinearDecay:
        """Both learning rates, constant and then falling to zero over `decay_epochs`, so that the amounts that the players
        chase each other over come to rest. A callback of `fit`; compile first."""
        settings = self.config.label_generator
        rates = [
            (self.generator_optimizer, settings.generator_learning_rate),
            (self.discriminator_optimizer, settings.discriminator_learning_rate),
        ]
        return LinearDecay(rates, self.epochs, settings.decay_epochs)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    # -- the networks at work ------------------------------------------------------------------------------------------------
    @property
    def generator_variables(self) -> list[tf.Variable]:
        """What the generator's optimiser trains."""
        return self.generator.trainable_variables

    @property
    def discriminator_variables(self) -> list[tf.Variable]:
        """What the discriminator's optimiser trains."""
        return self.discriminator.trainable_variables

    def draws(self, seeds: tf.Tensor, name: str, training: bool) -> dict[str, tf.Tensor]:
        """What the generator is given beside the grade, from seeds int64 [B]: {"latent": float32 [B, N]}. `name` names the draw;
        `training` is for subclasses that draw otherwise then."""
        return {"latent": random.normal(seeds, (self.config.label_generator.latent_size,), name)}

    def generated(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """`draws` and "grade" int [B] → class probabilities [B, S, S, K] float32."""
        return self.generator(inputs, training=training)

    def judged(self, planes: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """Planes [B, S, S, K] → {"score": [B, 1], "grade": logits [B, grades]} float32."""
        return self.discriminator(planes, training=training)

    def real_planes(self, label_map: tf.Tensor) -> tf.Tensor:
        """A batch's label maps uint8 [B, S, S] as the discriminator is to see them: float32 [B, S, S, K]."""
        return label_ops.one_hot(label_map, self.config.label_channels)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"grade": int [B], "seed": int64 [B]} → class probabilities [B, S, S, K] float32."""
        return self.generated({**self.draws(inputs["seed"], "label", training), "grade": inputs["grade"]}, training=training)

    # -- train step ---------------------------------------------------------------------------------------------------------
    def fake(self, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """A fresh generated batch: {"planes": [B, S, S, K], "grade": int32 [B]}, grades uniform; `use` names the draw."""
        share = random.uniform(seeds, (1,), f"{use}/grade")[:, 0]
        grade = tf.cast(tf.floor(share * self.config.label_generator.grades), tf.int32)
        inputs = {**self.draws(seeds, f"{use}/latent", training=True), "grade": grade}
        return {"planes": self.generated(inputs, training=True), "grade": grade}

    def augmented(self, planes: tf.Tensor, seeds: tf.Tensor, use: str) -> tf.Tensor:
        """Planes as the discriminator sees them in training."""
        return planes if self.augmentation is None else self.augmentation(planes, seeds, use)

    def adversarial_losses(
        self, real: dict[str, tf.Tensor], fake: dict[str, tf.Tensor], seeds: tf.Tensor, use: str
    ) -> dict[str, tf.Tensor]:
        """What the discriminator minimises beside the class terms: float32 scalars by name, here the hinge loss.

        Args:
            real, fake: {"planes": [B, S, S, K] as the discriminator saw them, "score": [B, 1], "grade": logits [B, grades]}.
            seeds: int64 [B].
            use: names draws.
        """
        return {"discriminator": hinge_discriminator(real["score"], fake["score"])}

    def discriminator_objective(self, losses: dict[str, tf.Tensor]) -> tf.Tensor:
        """The sum that the discriminator minimises."""
        return tf.add_n(list(losses.values()))

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`discriminator_steps` of the one player, then `generator_steps` of the other, each on noise and grades of its own.

        Args:
            batch: {"label_map": uint8 [B, S, S], "grade": int [B], "seed": int64 [B]}.
        """
        settings = self.config.label_generator
        real = self.real_planes(batch["label_map"])
        losses: dict[str, tf.Tensor] = {}
        for step in range(settings.discriminator_steps):
            losses |= self.discriminator_step(real, batch["grade"], batch["seed"], f"discriminator_{step}")
        for step in range(settings.generator_steps):
            losses |= self.generator_step(batch["seed"], f"generator_{step}")
        return recorded(self.loss_means, losses | self.standing())

    def standing(self) -> dict[str, tf.Tensor]:
        """What a step reports beside its losses: the augmentation's probability."""
        return {"augmentation": self.augmentation.probability if self.augmentation is not None else tf.constant(0.0)}

    def discriminator_step(self, real: tf.Tensor, grade: tf.Tensor, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """The adversarial losses and the class term on real and fake; then the augmentation adapts."""
        fake = self.fake(seeds, use)
        real = self.augmented(real, seeds, f"{use}/real")
        planes = self.augmented(tf.stop_gradient(fake["planes"]), seeds, f"{use}/fake")
        with tf.GradientTape() as tape:
            # in batches of their own, for the sake of batch norm
            on_real = {"planes": real, **self.judged(real, training=True)}
            on_fake = {"planes": planes, **self.judged(planes, training=True)}
            losses = {
                **self.adversarial_losses(on_real, on_fake, seeds, use),
                "class_real": cross_entropy(on_real["grade"], grade),
                "class_fake": cross_entropy(on_fake["grade"], fake["grade"]),
            }
            loss = self.replica_loss(self.discriminator_objective(losses), self.discriminator_optimizer)
        variables = self.discriminator_variables
        self.apply(self.discriminator_optimizer, tape.gradient(loss, variables), variables)
        if self.augmentation is not None:
            self.augmentation.update(on_real["score"])
        return losses

    def generator_step(self, seeds: tf.Tensor, use: str) -> dict[str, tf.Tensor]:
        """-E[D(G)] and, as in AC-GAN, the class term, which the authors' code leaves out (weight 0)."""
        with tf.GradientTape() as tape:
            fake = self.fake(seeds, use)
            on_fake = self.judged(self.augmented(fake["planes"], seeds, use), training=True)
            adversarial = hinge_generator(on_fake["score"])
            class_loss = cross_entropy(on_fake["grade"], fake["grade"])
            objective = adversarial + self.config.label_generator.generator_class_loss * class_loss
            loss = self.replica_loss(objective, self.generator_optimizer)
        variables = self.generator_variables
        self.apply(self.generator_optimizer, tape.gradient(loss, variables), variables)
        return {"generator": adversarial}
