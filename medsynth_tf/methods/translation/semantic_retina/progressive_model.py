"""Stage 1 with networks that grow: one Keras model a resolution, all on the same two networks, trained one after the other."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from medsynth_tf.layers.adaptive_augmentation import AdaptiveAugmentation
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.label_training import AdversarialLabelModel, make_augmentation
from medsynth_tf.methods.translation.semantic_retina.progressive_networks import (
    SIDE,
    ProgressiveLabelDiscriminator,
    ProgressiveLabelGenerator,
    fade,
)
from medsynth_tf.ops.resize import downsample_average, upsample_nearest


class ProgressiveLevel(AdversarialLabelModel):
    """The two networks at one resolution. Optimisers are its own, so that each resolution starts with fresh moments.

    Call it on {"grade": int [B], "seed": int64 [B]} for class probabilities [B, S, S, K], S = 4 · 2^level, at the α of the moment.

    Args:
        config: of the method.
        level: 0 …; fixed, so that each level has a graph of its own.
        generator, discriminator: those of all levels. Both are called with `level` and `alpha`, and tell by `variables_of` what a level
            trains.
        augmentation: that of all levels, or None.
    """

    LOSSES: ClassVar[tuple[str, ...]] = (*AdversarialLabelModel.LOSSES, "alpha")

    def __init__(
        self,
        config: SemanticRetinaConfig,
        level: int,
        generator: tf.keras.Model,
        discriminator: tf.keras.Model,
        augmentation: AdaptiveAugmentation | None,
        **kwargs: Any,
    ):
        super().__init__(config, generator, discriminator, augmentation, **kwargs)
        self.level = level
        # variables, since α must go on where a killed run stood, and must not be a constant of the graph
        common: dict[str, Any] = {"shape": [], "dtype": tf.int64, "initializer": "zeros", "trainable": False}
        self.fade_steps = self.add_weight(name="fade_steps", **common)
        self.step = self.add_weight(
            name="step",
            # every replica counts in a copy of its own
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            **common,
        )

    @property
    def side(self) -> int:
        """Of its maps."""
        return SIDE * 2**self.level

    @property
    def epochs(self) -> int:
        """Of its training."""
        return self.config.label_generator.progressive.epochs[self.level]

    @property
    def batch_size(self) -> int:
        """Of its training."""
        return self.config.label_generator.progressive.batch_sizes[self.level]

    def plan(self, steps: int) -> None:
        """Fades the level in over its share, `progressive.fade_share`, of so many steps; level 0 has nothing to fade from."""
        share = self.config.label_generator.progressive.fade_share if self.level > 0 else 0.0
        self.fade_steps.assign(int(share * steps))

    def alpha(self) -> tf.Tensor:
        """Share of the level in its output, float32 scalar: step / fade_steps up to 1; before `plan` 1."""
        step, fade_steps = tf.cast(self.step, tf.float32), tf.cast(self.fade_steps, tf.float32)
        return tf.where(step < fade_steps, step / tf.maximum(fade_steps, 1.0), 1.0)

    @property
    def generator_variables(self) -> list[tf.Variable]:
        """What the generator's optimiser trains."""
        return self.generator.variables_of(self.level)

    @property
    def discriminator_variables(self) -> list[tf.Variable]:
        """What the discriminator's optimiser trains."""
        return self.discriminator.variables_of(self.level)

    def generated(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """`draws` and "grade" int [B] → class probabilities [B, S, S, K] float32."""
        return self.generator(inputs, level=self.level, alpha=self.alpha(), training=training)

    def judged(self, planes: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """Planes [B, S, S, K] → {"score": [B, 1], "grade": logits [B, grades]} float32."""
        return self.discriminator(planes, level=self.level, alpha=self.alpha(), training=training)

    def real_planes(self, label_map: tf.Tensor) -> tf.Tensor:
        """Maps of `label_generator.size` → shares of the classes in each pixel of the level, float32 [B, S, S, K].

        While the level fades in, mixed with those of the previous level as generated maps are (arXiv:1710.10196, figure 2), so that
        detail alone does not tell them apart.
        """
        settings = self.config.label_generator
        planes = downsample_average(super().real_planes(label_map), settings.size // self.side)
        if self.level == 0:
            return planes
        return fade(upsample_nearest(downsample_average(planes, 2)), planes, self.alpha())

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """As `AdversarialLabelModel.train_step`, at one α; then α moves on."""
        means = super().train_step(batch)
        self.step.assign_add(1)
        return means

    def standing(self) -> dict[str, tf.Tensor]:
        """The augmentation's probability and α."""
        return {**super().standing(), "alpha": self.alpha()}


class ProgressiveModel(tf.keras.Model):
    """Soft label maps from grades by two networks that grow.

    Call it on {"grade": int [B], "seed": int64 [B]} for class probabilities [B, S, S, K], S = `label_generator.size`. It is not fitted
    itself: its `levels` are, from the coarsest to the finest.

    Args:
        config: of the method.
        generator, discriminator: as for `ProgressiveLevel`.
    """

    level_class: ClassVar[type[ProgressiveLevel]] = ProgressiveLevel

    def __init__(self, config: SemanticRetinaConfig, generator: tf.keras.Model, discriminator: tf.keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.generator, self.discriminator, self.augmentation = generator, discriminator, make_augmentation(config)
        self.levels = [
            self.level_class(config, level, generator, discriminator, self.augmentation, name=f"level_{level}")
            for level in range(config.label_generator.levels)
        ]
        self.built = True

    def compile(self, **kwargs: Any) -> None:
        """Compiles each level with the same arguments."""
        for level in self.levels:
            level.compile(**kwargs)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"grade": int [B], "seed": int64 [B]} → class probabilities [B, S, S, K] float32, of the last level alone."""
        last = self.levels[-1]
        inputs = {**last.draws(inputs["seed"], "label", training), "grade": inputs["grade"]}
        return self.generator(inputs, level=last.level, training=training)


class ProgressiveLabelGAN(ProgressiveModel):
    """The progressive GAN with the AC-GAN's losses.

    Args:
        config: of the method.
    """

    generator: ProgressiveLabelGenerator
    discriminator: ProgressiveLabelDiscriminator

    def __init__(self, config: SemanticRetinaConfig, **kwargs: Any):
        settings, seed = config.label_generator, layer_seed(config.seed, "label_generator")
        generator = ProgressiveLabelGenerator(
            settings.widths,
            config.label_channels,
            settings.grades,
            settings.latent_size,
            seed=layer_seed(seed, "generator"),
            name="generator",
        )
        discriminator = ProgressiveLabelDiscriminator(
            settings.levels,
            config.label_channels,
            settings.grades,
            settings.discriminator_filters,
            settings.spectral_norm,
            seed=layer_seed(seed, "discriminator"),
            name="discriminator",
        )
        super().__init__(config, generator, discriminator, **kwargs)
