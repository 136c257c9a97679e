"""DCGAN of photograph and masks together (Makinde and Saeed, section 3.1 and 4.1), as one Keras model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.joint_images import pairs
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.losses.adversarial import logistic_discriminator, logistic_generator
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.generation.pm_dcgan.config import PMDCGANConfig
from medsynth_tf.methods.joint_images import JointImageMethod
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.networks.dcgan import DCGANDiscriminator, DCGANGenerator, plan
from medsynth_tf.ops import random


class PMDCGAN(JointImageMethod):
    """Photographs with their masks from latent vectors.

    Call it on {"seed": int64 [B]} for float32 [B, S, S, C] in [-1, 1]: RGB, then a channel a mask.

    Args:
        config: its settings; S is `image_size`, C is `channels`.

    Raises:
        ConfigError: no plan of strides gives `image_size`.
    """

    config_class = PMDCGANConfig
    config: PMDCGANConfig

    def __init__(self, config: PMDCGANConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        try:
            plan(config.image_size)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        size, start = config.image_size, config.initialiser
        self.generator = DCGANGenerator(
            size, config.channels, config.generator_filters, start, layer_seed(config.seed, "generator"), name="generator"
        )
        self.discriminator = DCGANDiscriminator(
            size, config.discriminator_filters, start, layer_seed(config.seed, "discriminator"), name="discriminator"
        )
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in ("generator", "discriminator")}
        self.generator(tf.keras.Input([config.latent_size]))
        self.discriminator(tf.keras.Input([size, size, config.channels]))
        self.built = True
        if config.training.ema_decay is not None:
            statistics = [
                variable
                for norm in self.generator.norms
                if isinstance(norm, BatchNormalization)
                for variable in norm.non_trainable_variables
            ]
            self.average = WeightAverage(self.generator.trainable_variables + statistics, config.training.ema_decay)

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: PMDCGANConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "seed": int64 [B]} of records with all masks."""
        return pairs(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: PMDCGANConfig) -> RecordRequirements:
        """8-bit photographs; with more than three channels, label maps of 0 retina, 1 optic disc, 2 atrophy."""
        return cls.pair_requirements(config)

    # -- optimisers ---------------------------------------------------------------------------------------------------------
    def compile(
        self,
        generator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's, with the paper's Adam for each player unless others are given."""
        rates = self.config.optimiser
        self.generator_optimizer, self.discriminator_optimizer = (
            self.with_loss_scale(given or self.make_adam(rates.learning_rate, rates.beta_1, rates.beta_2))
            for given in (generator_optimizer, discriminator_optimizer)
        )
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of both losses."""
        return list(self.loss_means.values())

    # -- forward ------------------------------------------------------------------------------------------------------------
    def latent(self, seeds: tf.Tensor) -> tf.Tensor:
        """Latent vectors from N(0, I), float32 [B, N], one stream per seed."""
        return random.normal(seeds, (self.config.latent_size,), "latent")

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"seed": int64 [B]} → float32 [B, S, S, C] in [-1, 1]."""
        return self.generator(self.latent(inputs["seed"]), training=training)

    def instance_noise(self) -> tf.Tensor:
        """Standard deviation of the discriminator's noise at this step, float32 scalar."""
        settings = self.config.stabilisers
        level = tf.constant(settings.instance_noise, tf.float32)
        if settings.instance_noise_steps:
            done = tf.cast(self.discriminator_optimizer.iterations, tf.float32) / settings.instance_noise_steps
            level *= tf.maximum(1.0 - done, 0.0)
        return level

    def judged(self, joint: tf.Tensor, seeds: tf.Tensor, name: str, training: bool) -> tf.Tensor:
        """The discriminator's logits [B] of one kind of image; real and fake are never in one batch, so that norms keep them apart."""
        if self.config.stabilisers.instance_noise and training:
            size = self.config.image_size
            joint += self.instance_noise() * random.normal(seeds, (size, size, self.config.channels), name)
        return self.discriminator(joint, training=training)

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the discriminator, then one of the generator on the same fakes; returns the running means of the losses."""
        real, seeds = self.joined(batch), batch["seed"]
        with tf.GradientTape() as generator_tape:
            fake = self(batch, training=True)
            with tf.GradientTape() as discriminator_tape:
                on_real = self.judged(real, seeds, "noise on real", training=True)
                on_fake = self.judged(tf.stop_gradient(fake), seeds, "noise on fake", training=True)
                target = 1.0 - self.config.stabilisers.label_smoothing
                losses = {"discriminator": logistic_discriminator(on_real, on_fake, real_target=target)}
                objective = self.replica_loss(losses["discriminator"], self.discriminator_optimizer)
            variables = self.discriminator.trainable_variables
            self.apply(self.discriminator_optimizer, discriminator_tape.gradient(objective, variables), variables)
            losses["generator"] = logistic_generator(self.judged(fake, seeds, "noise on fake again", training=True))
            objective = self.replica_loss(losses["generator"], self.generator_optimizer)
        variables = self.generator.trainable_variables
        self.apply(self.generator_optimizer, generator_tape.gradient(objective, variables), variables)
        if self.average is not None:
            self.average.update()
        return recorded(self.loss_means, losses)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Both losses without learning and without noise."""
        on_real = self.judged(self.joined(batch), batch["seed"], "", training=False)
        on_fake = self.judged(self(batch), batch["seed"], "", training=False)
        target = 1.0 - self.config.stabilisers.label_smoothing
        return recorded(
            self.loss_means,
            {"discriminator": logistic_discriminator(on_real, on_fake, target), "generator": logistic_generator(on_fake)},
        )

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """`serving_default`: seed int64 [B] → image uint8 [B, S, S, 3] and, with masks, mask uint8 [B, S, S] (0 retina, 1 optic
        disc, 2 atrophy), empty_mask bool [B] (a mask has no pixel). `from_latent`: latent float32 [B, N] → the same."""

        def synthesize(seed: tf.Tensor) -> dict[str, tf.Tensor]:
            # convolutions of oneDNN give an empty batch a wrong shape, so it is refused here, in words and before anything runs
            with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(seed)[0], "seed: the batch is empty")]):
                seed = tf.identity(seed)
            return self.pixels(self({"seed": seed}))

        def from_latent(latent: tf.Tensor) -> dict[str, tf.Tensor]:
            tf.debugging.assert_positive(tf.shape(latent)[0], "latent: the batch is empty")
            finite = tf.reduce_all(tf.math.is_finite(latent))
            with tf.control_dependencies([tf.debugging.assert_equal(finite, True, "latent: values must be finite")]):
                latent = tf.identity(latent)
            return self.pixels(self.generator(latent))

        latents = tf.TensorSpec([None, self.config.latent_size], tf.float32, name="latent")
        return {
            "serving_default": tf.function(synthesize, input_signature=[tf.TensorSpec([None], tf.int64, name="seed")]),
            "from_latent": tf.function(from_latent, input_signature=[latents]),
        }

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature."""
        return {
            "serving_default": {"seed": np.zeros([1], np.int64)},
            "from_latent": {"latent": np.zeros([1, self.config.latent_size], np.float32)},
        }

    def fixed_grid(self) -> tf.Tensor:
        """What the model makes now of the same `fixed_samples` latent vectors at every call, float32 [N, S, S, C]."""
        seeds = [derive_seed(self.config.seed, "fixed samples", index) for index in range(self.config.fixed_samples)]
        with self.averaged_weights():
            return self({"seed": tf.constant(seeds, tf.int64)})

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The fixed samples in columns of eight, photographs left and masks right; the batch is not looked at."""
        return self.picture_columns(self.fixed_grid(), rows=min(8, self.config.fixed_samples))
