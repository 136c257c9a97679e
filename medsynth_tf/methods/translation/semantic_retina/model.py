"""The method as one Keras model: stage 2, hard label maps to photographs with SPADE; stage 1, the label generator, as a part."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchStatisticsNormalization
from medsynth_tf.losses.adversarial import feature_matching, hinge_discriminator, hinge_generator
from medsynth_tf.losses.divergence import gaussian_kl
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.schedules import LinearDecay
from medsynth_tf.methods.stage import Stage
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.data import batches
from medsynth_tf.methods.translation.semantic_retina.label_stages import label_stages, make_label_gan
from medsynth_tf.methods.translation.semantic_retina.sampling import harden, instance_map
from medsynth_tf.networks.patchgan import MultiscaleDiscriminator
from medsynth_tf.networks.spade_generator import SPADEGenerator, StyleEncoder
from medsynth_tf.networks.vgg import VGG19Features, perceptual_loss
from medsynth_tf.ops import labels as label_ops
from medsynth_tf.ops import random


class SemanticRetina(Method):
    """Fundus photographs from label maps.

    Call it on {"label_map": uint8 [B, S, S], "seed": int64 [B]} for images float32 [B, S, S, 3] in [-1, 1].

    Args:
        config: its settings; S is `image_size`, label codes index `labels`, 255 is outside the field of view.
    """

    config_class = SemanticRetinaConfig
    config: SemanticRetinaConfig
    LOSSES: ClassVar[tuple[str, ...]] = ("generator", "discriminator", "feature_matching", "perceptual", "l1", "kl")

    def __init__(self, config: SemanticRetinaConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        size, seed = config.image_size, config.seed
        self.edge_code = None if config.instance_label is None else config.labels.index(config.instance_label)
        self.plane_channels = config.label_channels + (self.edge_code is not None)
        generator = config.generator
        self.generator = SPADEGenerator(
            size,
            filters=generator.filters,
            hidden_filters=generator.hidden_filters,
            norm=generator.norm,
            upsampling=generator.upsampling,
            styled=config.style.enabled,
            seed=layer_seed(seed, "generator"),
            name="generator",
        )
        self.discriminator = MultiscaleDiscriminator(
            config.discriminator.scales,
            config.discriminator.filters,
            config.discriminator.layers,
            seed=layer_seed(seed, "discriminator"),
            name="discriminator",
        )
        self.encoder: StyleEncoder | None = None
        if config.style.enabled:
            self.encoder = StyleEncoder(
                config.style.size,
                config.style.filters,
                config.style.image_size,
                seed=layer_seed(seed, "encoder"),
                name="encoder",
            )
        self.label_gan = make_label_gan(config) if config.label_generator.enabled else None
        self.perceptual_network = None
        if config.losses.perceptual > 0 and config.losses.perceptual_weights is not None:
            self.perceptual_network = VGG19Features(config.losses.perceptual_weights, name="perceptual_network")
        self.l1_weight = 0.0 if self.perceptual_network is not None else config.losses.l1
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self._losses_in_use()}
        self._build_networks()
        if config.training.ema_decay is not None:
            statistics = [
                variable
                for part in self.generator.submodules
                if isinstance(part, BatchStatisticsNormalization)
                for variable in part.non_trainable_variables
            ]
            self.average = WeightAverage(self.generator.trainable_variables + statistics, config.training.ema_decay)

    def _losses_in_use(self) -> list[str]:
        unused = set()
        if self.perceptual_network is None:
            unused.add("perceptual")
        if self.l1_weight == 0.0:
            unused.add("l1")
        if self.encoder is None:
            unused.add("kl")
        return [name for name in self.LOSSES if name not in unused]

    def _build_networks(self) -> None:
        """Makes every variable now: a train step that made them would be traced twice."""
        size = self.config.image_size
        planes = tf.keras.Input([size, size, self.plane_channels])
        image = tf.keras.Input([size, size, 3])
        inputs = {"label": planes}
        if self.encoder is not None:
            inputs["style"] = tf.keras.Input([self.config.style.size])
            self.encoder(image)
        self.generator(inputs)
        self.discriminator(tf.keras.Input([size, size, self.plane_channels + 3]))
        self.built = True

    # -- data and schedule --------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: SemanticRetinaConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "seed": int64 [B]}."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: SemanticRetinaConfig) -> RecordRequirements:
        """8-bit photographs with a label map of the configured classes; with stage 1 also their grade, unless it is inferred."""
        stage_1 = config.label_generator
        graded = stage_1.enabled and stage_1.grading == "given"
        return RecordRequirements(
            names=("mask", "label") if graded else ("mask",),
            mask_codes=len(config.labels) - 1,
            labels=stage_1.grades if graded else None,
        )

    def stages(self, source: Source) -> list[Stage]:
        """Label maps, if stage 1 is enabled; then translation, with SPADE's learning-rate schedule."""
        rates = self.config.optimiser
        decay = LinearDecay(
            [
                (self.generator_optimizer, rates.generator_learning_rate),
                (self.discriminator_optimizer, rates.discriminator_learning_rate),
            ],
            self.config.training.epochs,
            rates.decay_epochs,
        )
        translation = self.stage("translation", source, callbacks=[decay] if rates.decay_epochs else [])
        if self.label_gan is None:
            return [translation]
        return [*label_stages(self.label_gan, source, self.preview_labels), translation]

    def compile(
        self,
        generator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's, with SPADE's two Adam optimisers unless others are given."""
        rates, losses = self.config.optimiser, self.config.losses
        if losses.perceptual > 0 and self.perceptual_network is None:
            warnings.warn(
                f"semantic_retina trains without its perceptual loss: losses.perceptual_weights names no file of VGG19 weights; "
                f"L1 with weight {losses.l1} takes its place",
                stacklevel=2,
            )
        self.generator_optimizer = self.with_loss_scale(
            generator_optimizer or self.make_adam(rates.generator_learning_rate, rates.beta_1, rates.beta_2)
        )
        self.discriminator_optimizer = self.with_loss_scale(
            discriminator_optimizer or self.make_adam(rates.discriminator_learning_rate, rates.beta_1, rates.beta_2)
        )
        if self.label_gan is not None:
            self.label_gan.compile()
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    @property
    def generator_variables(self) -> list[tf.Variable]:
        """What the generator's optimiser trains: generator and style encoder."""
        encoder = self.encoder.trainable_variables if self.encoder is not None else []
        return self.generator.trainable_variables + encoder

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    # -- forward ------------------------------------------------------------------------------------------------------------
    def planes(self, label_map: tf.Tensor) -> tf.Tensor:
        """Label map uint8 [B, S, S] → one-hot planes and, with `instance_label`, the edge plane: float32 [B, S, S, K]."""
        planes = label_ops.one_hot(label_map, self.config.label_channels)
        if self.edge_code is not None:
            edges = label_ops.instance_edges(instance_map(label_map, self.edge_code))
            planes = tf.concat([planes, edges], axis=-1)
        return planes

    def generate(self, planes: tf.Tensor, style: tf.Tensor | None, training: bool = False) -> tf.Tensor:
        """Planes [B, S, S, K] and styles [B, N] → images float32 [B, S, S, 3] in [-1, 1]."""
        inputs = {"label": planes}
        if style is not None:
            inputs["style"] = style
        return self.generator(inputs, training=training)

    def prior_style(self, seeds: tf.Tensor) -> tf.Tensor | None:
        """Styles from N(0, I), one stream per seed, or None without the style encoder."""
        return random.normal(seeds, (self.config.style.size,), "style") if self.encoder is not None else None

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"label_map": uint8 [B, S, S], "seed": int64 [B]} → images float32 [B, S, S, 3] in [-1, 1]."""
        return self.generate(self.planes(inputs["label_map"]), self.prior_style(inputs["seed"]), training)

    def reconstruct(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Translates a batch's label maps in the style of its photographs.

        Returns:
            {"planes", "real", "fake"}, and the losses that need no discriminator, unweighted float32 scalars.
        """
        planes = self.planes(batch["label_map"])
        real = tf.cast(batch["image"], tf.float32) / 127.5 - 1.0
        losses, style = {}, None
        if self.encoder is not None:
            mean, log_variance = self.encoder(real, training=training)
            noise = random.normal(batch["seed"], (self.config.style.size,), "posterior")
            style = mean + tf.exp(0.5 * log_variance) * noise
            losses["kl"] = gaussian_kl(mean, log_variance)
        fake = self.generate(planes, style, training)
        if self.perceptual_network is not None:
            losses["perceptual"] = perceptual_loss(self.perceptual_network, real, fake)
        if self.l1_weight:
            losses["l1"] = tf.reduce_mean(tf.abs(real - fake))
        return {"planes": planes, "real": real, "fake": fake}, losses

    def confront(self, images: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """The losses that the discriminator decides, for both players. Fake and real go through it as one batch."""
        planes, fake, real = images["planes"], images["fake"], images["real"]
        pairs = tf.concat([tf.concat([planes, fake], -1), tf.concat([planes, real], -1)], 0)
        outputs = self.discriminator(pairs, training=training)
        on_fake, on_real = ([[half[i] for half in scale] for scale in _halved(outputs)] for i in (0, 1))
        scales = float(len(outputs))
        return {
            "generator": tf.add_n([hinge_generator(scale[-1]) for scale in on_fake]) / scales,
            "discriminator": tf.add_n([hinge_discriminator(r[-1], f[-1]) for r, f in zip(on_real, on_fake)]) / scales,
            "feature_matching": feature_matching(on_real, on_fake),
        }

    def generator_objective(self, losses: dict[str, tf.Tensor]) -> tf.Tensor:
        """The weighted sum that the generator and the style encoder minimise."""
        weights = self.config.losses
        weight_of = {
            "generator": 1.0,
            "feature_matching": weights.feature_matching,
            "perceptual": weights.perceptual,
            "l1": self.l1_weight,
            "kl": weights.kl,
        }
        return tf.add_n([weight_of[name] * loss for name, loss in losses.items() if name in weight_of])

    def sample_labels(self, grade: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Hard label maps uint8 [B, S, S] of the grades int32 [B]; stage 1 must be enabled."""
        if self.label_gan is None:
            raise ConfigError("label maps cannot be sampled: label_generator.enabled is false")
        soft = self.label_gan({"grade": grade, "seed": seeds})
        return harden(soft, self.config.image_size, self.config.label_generator.mask_retina)

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of both players; returns the running means of the losses.

        One pass through the generator and one through the discriminator serve both: the discriminator's tape begins after the
        generator, so that its gradient ends at the images.
        """
        with tf.GradientTape() as generator_tape:
            images, losses = self.reconstruct(batch, training=True)
            with tf.GradientTape() as discriminator_tape:
                losses |= self.confront(images, training=True)
                discriminator_loss = self.replica_loss(losses["discriminator"], self.discriminator_optimizer)
            generator_loss = self.replica_loss(self.generator_objective(losses), self.generator_optimizer)
        discriminator_variables = self.discriminator.trainable_variables
        discriminator_gradients = discriminator_tape.gradient(discriminator_loss, discriminator_variables)
        generator_gradients = generator_tape.gradient(generator_loss, self.generator_variables)
        self.apply(self.generator_optimizer, generator_gradients, self.generator_variables)
        self.apply(self.discriminator_optimizer, discriminator_gradients, discriminator_variables)
        if self.average is not None:
            self.average.update()
        return recorded(self.loss_means, losses)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same losses without learning."""
        images, losses = self.reconstruct(batch, training=False)
        return recorded(self.loss_means, losses | self.confront(images, training=False))

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """`serving_default`: label_map uint8 [B, S, S], seed int64 [B] → image uint8 [B, S, S, 3]. With the style encoder also
        `restyle`: label_map, style_image uint8 [B, S, S, 3] → image in the style of the other photograph. With stage 1 also
        `generate`: grade int32 [B], seed → label_map, image and, with `instance_label`, instance_map uint8 [B, S, S]."""
        size, channels = self.config.image_size, self.config.label_channels
        maps = tf.TensorSpec([None, size, size], tf.uint8, name="label_map")

        def checked(label_map: tf.Tensor, other: tf.Tensor, name: str) -> tf.Tensor:
            batch = tf.shape(label_map)[0]
            # convolutions of oneDNN give an empty batch a wrong shape, so it is refused here, in words and before anything runs
            checks = [
                tf.debugging.assert_positive(batch, "label_map: the batch is empty"),
                tf.debugging.assert_equal(batch, tf.shape(other)[0], f"label_map and {name} differ in batch size"),
            ]
            with tf.control_dependencies(checks):
                return label_ops.assert_valid(tf.identity(label_map), channels)

        def synthesize(label_map: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            label_map = checked(label_map, seed, "seed")
            return {"image": to_pixels(self({"label_map": label_map, "seed": seed}))}

        seeds = tf.TensorSpec([None], tf.int64, name="seed")
        signatures = {"serving_default": tf.function(synthesize, input_signature=[maps, seeds])}
        if self.encoder is not None:
            encoder: StyleEncoder = self.encoder

            def restyle(label_map: tf.Tensor, style_image: tf.Tensor) -> dict[str, tf.Tensor]:
                label_map = checked(label_map, style_image, "style_image")
                mean, _ = encoder(tf.cast(style_image, tf.float32) / 127.5 - 1.0)
                return {"image": to_pixels(self.generate(self.planes(label_map), mean))}

            image = tf.TensorSpec([None, size, size, 3], tf.uint8, name="style_image")
            signatures["restyle"] = tf.function(restyle, input_signature=[maps, image])
        if self.label_gan is not None:

            def generate(grade: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
                grades = self.config.label_generator.grades
                message = f"grade: must be 0 … {grades - 1}"
                batch = tf.shape(grade)[0]
                checks = [
                    tf.debugging.assert_positive(batch, "grade: the batch is empty"),
                    tf.debugging.assert_equal(batch, tf.shape(seed)[0], "grade and seed differ in batch size"),
                    tf.debugging.assert_non_negative(grade, message),
                    tf.debugging.assert_less(grade, grades, message),
                ]
                with tf.control_dependencies(checks):  # else the embedding may fail first, in words of its own
                    grade = tf.identity(grade)
                label_map = self.sample_labels(grade, seed)
                answer = {"label_map": label_map, "image": to_pixels(self({"label_map": label_map, "seed": seed}))}
                if self.edge_code is not None:
                    answer["instance_map"] = instance_map(label_map, self.edge_code)
                return answer

            grades = tf.TensorSpec([None], tf.int32, name="grade")
            signatures["generate"] = tf.function(generate, input_signature=[grades, seeds])
        return signatures

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature: an all-retina label map."""
        size = self.config.image_size
        label_map = np.zeros([1, size, size], np.uint8)
        examples: dict[str, dict[str, np.ndarray]] = {
            "serving_default": {"label_map": label_map, "seed": np.zeros([1], np.int64)}
        }
        if self.encoder is not None:
            examples["restyle"] = {"label_map": label_map, "style_image": np.full([1, size, size, 3], 128, np.uint8)}
        if self.label_gan is not None:
            examples["generate"] = {"grade": np.zeros([1], np.int32), "seed": np.zeros([1], np.int64)}
        return examples

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Label map, synthetic and real photograph, each uint8 [B, S, S, 1 or 3]."""
        with self.averaged_weights():
            image = to_pixels(self(batch))
        return {"label map": self._grey(batch["label_map"]), "synthetic": image, "real": batch["image"]}

    def preview_labels(self, batch: dict[str, tf.Tensor], sampler: tf.keras.Model | None = None) -> dict[str, tf.Tensor]:
        """Real label maps beside sampled ones of the same grades, each uint8 [B, s, s, 1]; by default the finished sampler's."""
        assert self.label_gan is not None
        soft = (sampler or self.label_gan)({"grade": batch["grade"], "seed": batch["seed"]})
        return {"real": self._grey(batch["label_map"]), "sampled": self._grey(harden(soft, self.config.label_generator.size))}

    def _grey(self, label_map: tf.Tensor) -> tf.Tensor:
        """Codes as grey values, the background black: uint8 [B, S, S, 1]."""
        codes = tf.cast(label_map, tf.int32)
        step = 200 // max(1, len(self.config.labels))
        return tf.cast(tf.where(codes == label_ops.BACKGROUND, 0, 55 + codes * step), tf.uint8)[..., tf.newaxis]


def _halved(outputs: list[list[tf.Tensor]]) -> list[list[tuple[tf.Tensor, tf.Tensor]]]:
    """Each feature as (fake, real), which went through the discriminator in this order as one batch."""
    return [[tuple(tf.split(feature, 2)) for feature in scale] for scale in outputs]


def to_pixels(image: tf.Tensor) -> tf.Tensor:
    """[-1, 1] float → 0 … 255 uint8, rounded."""
    return tf.cast(tf.round((tf.clip_by_value(tf.cast(image, tf.float32), -1.0, 1.0) + 1.0) * 127.5), tf.uint8)
