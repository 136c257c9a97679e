"""DCGAN, LSGAN, WGAN-GP or AC-GAN of small medical images, as one Keras model (Tronchin et al., section 2.1, tables 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses import adversarial
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.generation.gan_eval.config import GANEvalConfig
from medsynth_tf.methods.generation.gan_eval.data import batches, keys_of
from medsynth_tf.methods.generation.gan_eval.serving import signatures, to_bytes
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.stage import Stage
from medsynth_tf.networks import lesion_gans
from medsynth_tf.ops import random

Batch = dict[str, tf.Tensor]


class GANEval(Method):
    """Images of a class from seeds.

    Call it on {"label": int64 [B], "seed": int64 [B]} for float32 [B, S, S, C] in [-1, 1]. Only AC-GAN looks at the label.

    Args:
        config: its settings; S is `image_size`, C is `channels`.
    """

    config_class = GANEvalConfig
    config: GANEvalConfig

    def __init__(self, config: GANEvalConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.hyper = config.chosen
        self.generator = make_generator(config)
        self.discriminator = make_discriminator(config)
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self._loss_names()}
        self.generator(tf.keras.Input([self.hyper.latent_size + (config.classes if config.conditional else 0)]))
        self.discriminator(tf.keras.Input(config.image_shape))
        self.built = True
        if config.training.ema_decay is not None:
            self.average = WeightAverage(self.generator.variables, config.training.ema_decay)

    def _loss_names(self) -> list[str]:
        extra = {"wgangp": ["gradient_penalty"], "acgan": ["class_real", "class_fake"]}
        return ["generator", "discriminator", *extra.get(self.config.gan, [])]

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: GANEvalConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, S, S, C], "label", "seed": int64 [B]} of the classes that the GAN learns."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: GANEvalConfig) -> RecordRequirements:
        """Images of any type; labels, where there are classes; masks, where pixels outside are to be 0."""
        wanted = (("label", config.classes > 1), ("mask", config.intensity.roi))
        return RecordRequirements(
            names=tuple(name for name, asked in wanted if asked),
            image_dtypes=("uint8", "int16", "uint16", "int32", "float32"),
            labels=config.classes if config.classes > 1 else None,
        )

    def stages(self, source: Source) -> list[Stage]:
        """One fit over the training records of the classes that the GAN learns.

        Raises:
            DataError: there is less than a batch of them.
        """
        config, batch = self.config, self.config.training.batch_size
        available = len(keys_of(source, config, "train"))
        if available < batch:
            raise DataError(f"{available} training records of class {config.labels}, less than a batch ({batch})")
        held_out = {key.label for key in source.split("val", config.data.split_fractions, config.seed)}
        validates = bool(held_out) and (config.classes == 1 or bool(held_out & set(config.labels)))
        return [
            Stage(
                name="train",
                model=self,
                epochs=config.training.epochs,
                steps_per_epoch=config.training.steps_per_epoch or available // batch,
                batches=lambda first_step: self.dataset(source, config, "train", config.seed, first_step, epochs=None),
                validation=(lambda: self.dataset(source, config, "val", config.seed)) if validates else None,
            )
        ]

    # -- optimisers ---------------------------------------------------------------------------------------------------------
    def compile(
        self,
        generator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's, with table 3's Adam for each player unless others are given."""
        hyper = self.hyper
        self.generator_optimizer, self.discriminator_optimizer = (
            self.with_loss_scale(given or self.make_adam(rate, hyper.beta_1, hyper.beta_2))
            for given, rate in (
                (generator_optimizer, hyper.generator_rate),
                (discriminator_optimizer, hyper.discriminator_rate),
            )
        )
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    # -- forward ------------------------------------------------------------------------------------------------------------
    def latent(self, seeds: tf.Tensor, name: str = "latent") -> tf.Tensor:
        """z from N(0, I), float32 [B, N], one stream per seed and name."""
        return random.normal(seeds, (self.hyper.latent_size,), name)

    def synthesize(self, seeds: tf.Tensor, labels: tf.Tensor, name: str = "latent", training: bool = False) -> tf.Tensor:
        """Images float32 [B, S, S, C] in [-1, 1] of seeds and classes, int64 [B]."""
        latent = self.latent(seeds, name)
        if self.config.conditional:
            latent = tf.concat([latent, tf.one_hot(labels, self.config.classes)], -1)
        return self.generator(latent, training=training)

    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """{"label": int64 [B], "seed": int64 [B]} → float32 [B, S, S, C] in [-1, 1]."""
        return self.synthesize(inputs["seed"], inputs["label"], training=training)

    def judged(self, images: tf.Tensor, seeds: tf.Tensor, name: str, training: bool) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Scores [B] of images, and AC-GAN's class logits [B, K]."""
        if not self.config.conditional:
            return self.discriminator(images, training=training), None
        if not training:
            return self.discriminator(images)
        dropout = random.uniform(seeds, (sum(self.discriminator.activations),), f"dropout, {name}")
        return self.discriminator(images, training=True, dropout=dropout)

    def discriminator_losses(self, real: tf.Tensor, fake: tf.Tensor, batch: Batch, name: str, training: bool) -> Batch:
        """Table 2's, by name; "discriminator" is what the discriminator minimises.

        Args:
            real, fake: float32 [B, S, S, C] in [-1, 1].
            batch: its labels and seeds.
            name: of this update, for what is random in it.
            training: with dropout, with norms' own statistics.
        """
        config, seeds = self.config, batch["seed"]
        on_real, classes_real = self.judged(real, seeds, f"real, {name}", training)
        on_fake, classes_fake = self.judged(fake, seeds, f"fake, {name}", training)
        if config.gan == "lsgan":
            return {"discriminator": adversarial.least_squares_discriminator(on_real, on_fake)}
        if config.gan == "wgangp":
            share = random.uniform(seeds, (), f"share, {name}")
            penalty = adversarial.gradient_penalty(lambda x: self.judged(x, seeds, "", training)[0], real, fake, share)
            total = adversarial.wasserstein_critic(on_real, on_fake) + config.gradient_penalty * penalty
            return {"discriminator": total, "gradient_penalty": penalty}
        source = adversarial.logistic_discriminator(on_real, on_fake, real_target=1.0 - self.hyper.label_smoothing)
        if config.gan == "dcgan":
            return {"discriminator": source}
        named = {"class_real": classes_real, "class_fake": classes_fake}
        found = {key: cross_entropy(logits, batch["label"]) for key, logits in named.items()}
        return {"discriminator": source + found["class_real"] + found["class_fake"], **found}

    def generator_loss(self, fake: tf.Tensor, batch: Batch, name: str, training: bool) -> tf.Tensor:
        """Table 2's; arguments as `discriminator_losses`'."""
        on_fake, classes = self.judged(fake, batch["seed"], f"fake again, {name}", training)
        if self.config.gan == "lsgan":
            return 0.5 * adversarial.least_squares_generator(on_fake)
        if self.config.gan == "wgangp":
            return adversarial.hinge_generator(on_fake)
        source = adversarial.logistic_generator(on_fake)
        return source if classes is None else source + cross_entropy(classes, batch["label"])

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: Batch) -> Batch:
        """`discriminator_steps` updates of the discriminator, then one of the generator; returns the running means of the losses.

        Each update has new synthetic images, of the classes of the batch's real ones.
        """
        real = to_unit_range(batch["image"])
        variables, optimizer = self.discriminator.trainable_variables, self.discriminator_optimizer
        losses: Batch = {}
        for step in range(self.config.discriminator_steps):
            fake = tf.stop_gradient(self.synthesize(batch["seed"], batch["label"], f"latent {step}", training=True))
            with tf.GradientTape() as tape:
                losses = self.discriminator_losses(real, fake, batch, str(step), training=True)
                objective = self.replica_loss(losses["discriminator"], optimizer)
            self.apply(optimizer, tape.gradient(objective, variables), variables)
        variables, optimizer = self.generator.trainable_variables, self.generator_optimizer
        with tf.GradientTape() as tape:
            fake = self.synthesize(batch["seed"], batch["label"], "latent of the generator's step", training=True)
            losses["generator"] = self.generator_loss(fake, batch, "generator", training=True)
            objective = self.replica_loss(losses["generator"], optimizer)
        self.apply(optimizer, tape.gradient(objective, variables), variables)
        if self.average is not None:
            self.average.update()
        return recorded(self.loss_means, losses)

    def test_step(self, batch: Batch) -> Batch:
        """The losses without learning."""
        fake = self(batch)
        losses = self.discriminator_losses(to_unit_range(batch["image"]), fake, batch, "test", training=False)
        return recorded(self.loss_means, {**losses, "generator": self.generator_loss(fake, batch, "test", training=False)})

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Callable[..., Batch]]:
        """`serving_default`: label int64 [B], seed int64 [B] → image uint8 [B, S, S, C]; without classes it takes no label."""
        return signatures(self)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request: a class that the model makes."""
        labels = {"label": np.full([1], self.config.labels[0], np.int64)} if self.config.classes > 1 else {}
        return {"serving_default": {"seed": np.zeros([1], np.int64), **labels}}

    def fixed_grid(self) -> tf.Tensor:
        """What the model makes now of the same `fixed_samples` latent vectors at every call, classes in turn: uint8 [N, S, S, C]."""
        count = self.config.fixed_samples
        seeds = [derive_seed(self.config.seed, "fixed samples", index) for index in range(count)]
        labels = tf.constant(np.resize(self.config.labels, count), tf.int64)
        with self.averaged_weights():
            return to_bytes(self({"seed": tf.constant(seeds, tf.int64), "label": labels}))

    def preview(self, batch: Batch) -> Batch:
        """Real images of a batch and, as many, fixed samples."""
        made = self.fixed_grid()
        count = min(made.shape[0], batch["image"].shape[0])
        return {"image": batch["image"][:count], "synthetic": made[:count]}


def to_unit_range(images: tf.Tensor) -> tf.Tensor:
    """uint8 → float32 in [-1, 1]: (x/255 − 0.5)/0.5."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def make_generator(config: GANEvalConfig) -> tf.keras.Model:
    """The chosen GAN's generator, of widths that are multiples of `generator_filters`."""
    hyper, seed, name = config.chosen, layer_seed(config.seed, "generator"), "generator"
    width, size, channels = hyper.generator_filters, config.image_size, config.channels
    norm = hyper.batch_norm != "none"
    parts = lesion_gans.Parts(hyper.generator_kernel, hyper.initialiser, hyper.generator_activation, norm, seed)
    if config.gan == "wgangp":
        blocks = (8 * width, 4 * width, 2 * width, width)
        return lesion_gans.ResidualGenerator(size, channels, 8 * width, blocks, parts, name=name)
    if config.gan == "lsgan":
        pairs = (4 * width, 4 * width, 2 * width, width)
        return lesion_gans.TransposedGenerator(size, channels, 4 * width, pairs, parts, paired=True, name=name)
    if config.gan == "acgan":
        three = (4 * width, 2 * width, width)
        return lesion_gans.TransposedGenerator(size, channels, 8 * width, three, parts, final_convolution=False, name=name)
    four = (8 * width, 4 * width, 2 * width, width)
    return lesion_gans.TransposedGenerator(size, channels, 16 * width, four, parts, name=name)


def make_discriminator(config: GANEvalConfig) -> tf.keras.Model:
    """The chosen GAN's discriminator, of widths that are multiples of `discriminator_filters`."""
    hyper, seed, name = config.chosen, layer_seed(config.seed, "discriminator"), "discriminator"
    width, norm = hyper.discriminator_filters, hyper.batch_norm == "both"
    parts = lesion_gans.Parts(hyper.discriminator_kernel, hyper.initialiser, "leaky_relu", norm, seed)
    if config.gan == "wgangp":
        return lesion_gans.ResidualCritic(width, (2 * width, 4 * width, 8 * width, 8 * width), parts, name=name)
    if config.gan == "acgan":
        filters = tuple(width * 2**place for place in range(5))
        return lesion_gans.AuxiliaryDiscriminator(config.image_size, config.classes, filters, parts, name=name)
    return lesion_gans.StridedDiscriminator(tuple(width * 2**place for place in range(4)), parts, name=name)
