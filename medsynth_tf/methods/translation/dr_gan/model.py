"""DR-GAN as one Keras model: grading network, grade Gaussians, G_m, then G_m + G_l against discriminators with grade heads."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.losses.adversarial import logistic_discriminator, logistic_generator
from medsynth_tf.losses.classification import focal_loss
from medsynth_tf.losses.feature_distance import mean_absolute_distance, root_mean_square_distance
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.stage import Stage
from medsynth_tf.methods.translation.dr_gan import serving
from medsynth_tf.methods.translation.dr_gan.config import FIELD_OF_VIEW, SCALES, DRGANConfig
from medsynth_tf.methods.translation.dr_gan.data import batches
from medsynth_tf.methods.translation.dr_gan.grading import GradeGaussians, GradeMoments, Grader, unit_range
from medsynth_tf.methods.translation.dr_gan.networks import (
    CoarseGenerator,
    DiscriminatorPyramid,
    FineGenerator,
    ImageHead,
    MappingNetwork,
    plane_pyramid,
)
from medsynth_tf.networks.vgg import VGG19Features
from medsynth_tf.ops import labels as label_ops
from medsynth_tf.ops import random

Phase = Literal["coarse", "fine"]


class DRGAN(Method):
    """Fundus photographs from masks and a grade.

    Call it on {"label_map": uint8 [B, S, S], "seed": int64 [B]}, with "grade" int64 [B] if the caller says it (-1: the encoder does)
    and "planes" float32 [B, S, S, K] in place of the label map for soft masks; it gives images float32 [B, S, S, 3] in [-1, 1].

    Args:
        config: its settings; S is `image_size`, K the number of `structures` and `lesions`.
    """

    config_class = DRGANConfig
    config: DRGANConfig
    LOSSES: ClassVar[tuple[str, ...]] = (
        "generator",
        "discriminator",
        "feature_matching",
        "perceptual",
        "classification",
        "discriminator_classification",
        "grade_head",
    )

    def __init__(self, config: DRGANConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        seed, generator, grading = config.seed, config.generator, config.grading
        self.phase: Phase = "fine" if config.fine.enabled else "coarse"
        self.coarse = CoarseGenerator(
            generator.filters,
            generator.residual_blocks,
            config.grades,
            config.use_agm,
            config.attention if config.use_sca else None,
            seed=layer_seed(seed, "coarse"),
            name="coarse",
        )
        self.coarse_image = ImageHead(layer_seed(seed, "coarse_image"), name="coarse_image")
        self.fine: FineGenerator | None = None
        if config.fine.enabled:
            self.fine = FineGenerator(config.fine.filters, generator.filters, seed=layer_seed(seed, "fine"), name="fine")
        self.discriminators = DiscriminatorPyramid(
            config.discriminator.count,
            config.discriminator.filters,
            config.grades if config.use_cls_in_d else None,
            config.discriminator.norm,
            seed=layer_seed(seed, "discriminators"),
            name="discriminators",
        )
        self.grader = Grader(config, name="grader") if config.needs_grader else None
        self.mapping: MappingNetwork | None = None
        self.gaussians: GradeGaussians | None = None
        self.moments: GradeMoments | None = None
        if config.use_agm and self.grader is not None:
            self.mapping = MappingNetwork(
                generator.mapping_layers, generator.mapping_width, layer_seed(seed, "mapping"), name="mapping"
            )
            self.gaussians = GradeGaussians(
                config.grades,
                self.grader.feature_size,
                grading.covariance,
                grading.shrinkage,
                grading.minimum_deviation,
            )
            self.moments = GradeMoments(self.grader, self.gaussians, name="moments")
        self.perceptual_network: VGG19Features | None = None
        if config.perceptual_weight > 0 and config.losses.perceptual_weights is not None:
            self.perceptual_network = VGG19Features(config.losses.perceptual_weights, name="perceptual_network")
        self._plane_of_code = _plane_table(config)
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self._losses_in_use()}
        self._build_networks()
        if config.training.ema_decay is not None:
            statistics = [
                variable
                for part in self._generator_parts()
                for layer in part.submodules
                if isinstance(layer, BatchNormalization)
                for variable in layer.non_trainable_variables
            ]
            self.average = WeightAverage(self.generator_variables + statistics, config.training.ema_decay)

    def _losses_in_use(self) -> list[str]:
        unused = set()
        if self.config.perceptual_weight == 0.0:
            unused.add("perceptual")
        if not self.config.use_cls_in_d:
            unused |= {"classification", "discriminator_classification"}
        return [name for name in self.LOSSES if name not in unused]

    def _build_networks(self) -> None:
        """Makes every variable now: a train step that made them would be traced twice."""
        config, size = self.config, self.config.coarse_size
        channels = len(config.channels)
        inputs: dict[str, Any] = {
            "planes": tf.keras.Input([size, size, channels]),
            "noise": [tf.keras.Input(shape) for shape in self.coarse.noise_shapes(size)],
        }
        if self.mapping is not None and self.grader is not None:
            inputs["style"] = self.mapping(tf.keras.Input([self.grader.feature_size]))
        features, _ = self.coarse(inputs)
        self.coarse_image(features)
        if self.fine is not None:
            self.fine((tf.keras.Input([2 * size, 2 * size, channels]), features))
        self.discriminators(tf.keras.Input([config.image_size, config.image_size, 3 + channels]))
        self.built = True

    # -- data and schedule --------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: DRGANConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "grade": int64 [B], "seed": int64 [B]}.

        A map over them may add "planes" float32 [B, S, S, K]: soft masks, which then take the label map's place, see `masks`.
        """
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: DRGANConfig) -> RecordRequirements:
        """8-bit photographs with a label map of the configured classes and a grade."""
        return RecordRequirements(names=("mask", "label"), mask_codes=len(config.labels) - 1, labels=config.grades)

    def stages(self, source: Source) -> list[Stage]:
        """Grading network, one pass for the Gaussians, G_m, then G_m + G_l; without those that the configuration leaves out."""
        config = self.config
        stages = []
        if self.grader is not None:
            grading = dataclasses.replace(self.stage("grading", source), model=self.grader, epochs=config.grading.epochs)
            stages.append(grading)
        if self.moments is not None:
            images = len(source.split("train", config.data.split_fractions, config.seed))
            stages.append(
                Stage(
                    name="gaussians",
                    model=self.moments,
                    epochs=1,
                    steps_per_epoch=math.ceil(images / config.training.batch_size),
                    batches=lambda first: self.dataset(source, config, "train", config.seed, first, training=False),
                )
            )
        begin = functools.partial(self._begin, "coarse")
        stages.append(dataclasses.replace(self.stage("coarse", source), begin=begin))
        if self.fine is not None:
            begin = functools.partial(self._begin, "fine")
            stages.append(dataclasses.replace(self.stage("fine", source), epochs=config.fine.epochs, begin=begin))
        return stages

    def _begin(self, phase: Phase) -> None:
        if self.gaussians is not None:
            self.gaussians.settle()
        self.set_phase(phase)

    def set_phase(self, phase: Phase) -> None:
        """What train and test steps work on: 'coarse' is G_m and its own image head, 'fine' G_m + G_l at the full size."""
        if phase == "fine" and self.fine is None:
            raise ValueError("phase 'fine': this configuration has no fine generator (fine.enabled)")
        if phase != self.phase:
            self.phase = phase
            self.train_function = self.test_function = self.train_tf_function = None  # traced for the other phase

    def collect_grades(self, dataset: tf.data.Dataset) -> None:
        """The stage 'gaussians' for users of `fit`: counts a data set's images into the Gaussians anew, and settles them."""
        if self.gaussians is None or self.moments is None:
            raise ValueError("collect_grades: this configuration has no grade Gaussians (use_agm)")
        self.gaussians.reset()
        self.moments.fit(dataset, verbose=0)
        self.gaussians.settle()

    # -- optimisation -------------------------------------------------------------------------------------------------------
    def compile(
        self,
        generator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's, with the paper's Adam for both players unless others are given; compiles the grading network too."""
        rates = self.config.optimiser
        self.generator_optimizer = self.with_loss_scale(
            generator_optimizer or self.make_adam(rates.generator_learning_rate, rates.beta_1, rates.beta_2)
        )
        self.discriminator_optimizer = self.with_loss_scale(
            discriminator_optimizer or self.make_adam(rates.discriminator_learning_rate, rates.beta_1, rates.beta_2)
        )
        jit_compile = kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator_variables)
        self.discriminator_optimizer.build(self.discriminators.trainable_variables)
        if self.grader is not None:
            self.grader.compile_for(self.make_adam(self.config.grading.learning_rate, 0.9, 0.999), jit_compile)
        if self.moments is not None:
            self.moments.compile()

    def fit(self, *args: Any, **kwargs: Any) -> tf.keras.callbacks.History:
        """As Keras's, in the phase that is set; warns while the Gaussians know nothing of grades."""
        if self.gaussians is not None and not self.gaussians.settled.numpy():
            warnings.warn(
                "dr_gan trains without its grade Gaussians: run the stages of model.stages(source), or fit model.grader and call "
                "model.collect_grades(train) first; until then all grades look alike to it",
                stacklevel=2,
            )
        return super().fit(*args, **kwargs)

    def _generator_parts(self) -> list[tf.keras.Model | tf.keras.layers.Layer]:
        parts = [self.coarse, self.coarse_image, self.fine, self.mapping]
        return [part for part in parts if part is not None]

    @property
    def generator_variables(self) -> list[tf.Variable]:
        """All that the generator's optimiser ever trains: G_m, its image head, G_l and the mapping network."""
        return [variable for part in self._generator_parts() for variable in part.trainable_variables]

    @property
    def moving_variables(self) -> list[tf.Variable]:
        """Those of `generator_variables` that the phase trains: G_m's own image head rests in the fine one, G_l in the coarse one."""
        resting = self.fine if self.phase == "coarse" else self.coarse_image
        names = set() if resting is None else {variable.ref() for variable in resting.trainable_variables}
        return [variable for variable in self.generator_variables if variable.ref() not in names]

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    # -- forward ------------------------------------------------------------------------------------------------------------
    def planes(self, label_map: tf.Tensor) -> tf.Tensor:
        """Label map uint8 [B, S, S] → condition planes float32 [B, S, S, K], 1 where the map has the channel's class."""
        return tf.gather(self._plane_of_code, tf.cast(label_map, tf.int32))

    def condition(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """The soft planes of `inputs` if it has any, else those of its label map; without lesions where they are left out."""
        planes = inputs["planes"] if "planes" in inputs else self.planes(inputs["label_map"])
        if not self.config.use_lesion_masks:
            kept = [1.0] * len(self.config.structures) + [0.0] * len(self.config.lesions)
            planes *= tf.constant(kept)
        return planes

    def style(self, grades: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor | None:
        """Styles [B, N] of grading vectors, each drawn from its own grade's Gaussian; None without grading manipulation."""
        if self.gaussians is None or self.mapping is None:
            return None
        return self.mapping(self.gaussians.standardised(self.gaussians.sample(grades, seeds)))

    def generate(
        self, planes: tf.Tensor, grades: tf.Tensor | None, seeds: tf.Tensor, training: bool = False, phase: Phase | None = None
    ) -> dict[str, tf.Tensor]:
        """Images of masks.

        Args:
            planes: float32 [B, S, S, K] in [0, 1], at the full size.
            grades: int64 [B], -1 where the encoder's grade head decides; None: it always does.
            seeds: int64 [B] of grading vectors and noise.
            training: batch statistics in the norms.
            phase: 'coarse' for G_m's own image at its own size; default: what the configuration ends with.

        Returns:
            {"image" float32 in [-1, 1], "grade" int64 [B] that was drawn from, "grade_logits" [B, grades] of the encoder}.
        """
        phase = phase or ("fine" if self.fine is not None else "coarse")
        halved = plane_pyramid(planes, 2)[1] if self.fine is not None else planes
        pyramid = plane_pyramid(halved, SCALES + 1)
        encodings, logits = self.coarse.encode(pyramid[0], training=training)
        predicted = tf.argmax(logits, axis=-1)
        grades = predicted if grades is None else tf.where(grades < 0, predicted, grades)
        shapes = self.coarse.noise_shapes(self.config.coarse_size)
        noise = [random.normal(seeds, shape, f"noise_{i}") for i, shape in enumerate(shapes)]
        features = self.coarse.decode(encodings, pyramid, noise, self.style(grades, seeds), training=training)
        if phase == "fine" and self.fine is not None:
            image = self.fine((planes, features), training=training)
        else:
            image = self.coarse_image(features)
        return {"image": image, "grade": grades, "grade_logits": logits}

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"label_map" or "planes", "seed", and "grade" unless the encoder decides} → images float32 [B, S, S, 3] in [-1, 1]."""
        return self.generate(self.condition(inputs), self._asked_for(inputs), inputs["seed"], training)["image"]

    def _asked_for(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor | None:
        return inputs.get("grade") if self.config.grade_source == "given" else None

    def reconstruct(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Makes images of a batch's masks at its true grades, in the present phase.

        Returns:
            {"planes", "real", "fake", "grade"} at the phase's size, and the losses that need no discriminator, unweighted.
        """
        planes, real = self.condition(batch), unit_range(batch["image"])
        made = self.generate(planes, batch["grade"], batch["seed"], training, self.phase)
        if self.phase == "coarse" and self.fine is not None:
            planes, real = plane_pyramid(planes, 2)[1], plane_pyramid(real, 2)[1]
        fake = made["image"]
        losses = {"grade_head": focal_loss(made["grade_logits"], batch["grade"], self.config.losses.focal_gamma)}
        if self.config.perceptual_weight > 0:
            losses["perceptual"] = mean_absolute_distance(self.perceptual_maps(real), self.perceptual_maps(fake))
        return {"planes": planes, "real": real, "fake": fake, "grade": batch["grade"]}, losses

    def perceptual_maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Images [B, S, S, 3] → feature maps of F: VGG19 if its weights were given, else the grading network."""
        if self.perceptual_network is not None:
            return self.perceptual_network(images)
        if self.grader is None:
            raise ValueError("perceptual_maps: this configuration has no perceptual loss")
        return self.grader.perceptual_maps(images)

    def confront(self, images: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The losses that the discriminators decide, for both players. Fake and real go through them as one batch."""
        planes, fake, real, grade = (images[name] for name in ("planes", "fake", "real", "grade"))
        pairs = tf.concat([tf.concat([fake, planes], -1), tf.concat([real, planes], -1)], 0)
        outputs = tf.nest.map_structure(lambda x: tf.split(x, 2), self.discriminators(pairs))
        gamma = self.config.losses.focal_gamma
        losses = {
            "generator": tf.add_n([logistic_generator(scale["score"][0]) for scale in outputs]),
            "discriminator": tf.add_n([logistic_discriminator(*reversed(scale["score"])) for scale in outputs]),
            "feature_matching": tf.add_n(
                [
                    root_mean_square_distance([real for _, real in scale["features"]], [fake for fake, _ in scale["features"]])
                    for scale in outputs
                ]
            ),
        }
        if self.config.use_cls_in_d:
            on_fake = tf.add_n([focal_loss(scale["grade_logits"][0], grade, gamma) for scale in outputs])
            on_real = tf.add_n([focal_loss(scale["grade_logits"][1], grade, gamma) for scale in outputs])
            losses |= {"classification": on_fake, "discriminator_classification": on_real + on_fake}
        return losses

    def generator_objective(self, losses: dict[str, tf.Tensor]) -> tf.Tensor:
        """The weighted sum that the generator minimises."""
        weights = self.config.losses
        weight_of = {
            "generator": 1.0,
            "feature_matching": weights.feature_matching,
            "perceptual": weights.perceptual,
            "classification": weights.classification,
            "grade_head": weights.grade_head,
        }
        return tf.add_n([weight_of[name] * loss for name, loss in losses.items() if name in weight_of])

    def discriminator_objective(self, losses: dict[str, tf.Tensor]) -> tf.Tensor:
        """The weighted sum that the discriminators minimise."""
        objective = losses["discriminator"]
        if "discriminator_classification" in losses:
            objective += self.config.losses.classification * losses["discriminator_classification"]
        return objective

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of both players; returns the running means of the losses.

        One pass through the generator and one through the discriminators serve both: the discriminators' tape begins after the
        generator, so that its gradient ends at the images.
        """
        moving, judging = self.moving_variables, self.discriminators.trainable_variables
        with tf.GradientTape() as generator_tape:
            images, losses = self.reconstruct(batch, training=True)
            with tf.GradientTape() as discriminator_tape:
                losses |= self.confront(images)
                discriminator_loss = self.replica_loss(self.discriminator_objective(losses), self.discriminator_optimizer)
            generator_loss = self.replica_loss(self.generator_objective(losses), self.generator_optimizer)
        discriminator_gradients = discriminator_tape.gradient(discriminator_loss, judging)
        generator_gradients = generator_tape.gradient(generator_loss, moving)
        self.apply(self.generator_optimizer, generator_gradients, moving)
        self.apply(self.discriminator_optimizer, discriminator_gradients, judging)
        if self.average is not None:
            self.average.update()
        return recorded(self.loss_means, losses)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same losses without learning."""
        images, losses = self.reconstruct(batch, training=False)
        return recorded(self.loss_means, losses | self.confront(images))

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """`serving_default`: label_map uint8 [B, S, S], grade int64 [B], seed int64 [B] → image uint8 [B, S, S, 3], grade int64 [B]
        that it shows, grade_probabilities float32 [B, grades] of the encoder. `synthesize_planes`: the same from planes float32
        [B, S, S, K] in [0, 1]. Grade -1 leaves the grade to the encoder; there is no such input where it always does."""
        return serving.signatures(self)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature: no vessels and no lesions."""
        return serving.example_inputs(self)

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Label map, synthetic photograph at the true grade and real one, each uint8 [B, S, S, 1 or 3]."""
        grey = tf.cast(batch["label_map"], tf.int32)
        step = 200 // max(1, len(self.config.labels))
        grey = tf.where(grey == label_ops.BACKGROUND, 0, 55 + grey * step)
        with self.averaged_weights():
            image = self.generate(self.condition(batch), batch["grade"], batch["seed"], phase=self.phase)["image"]
        if image.shape[1] != self.config.image_size:
            image = tf.image.resize(image, [self.config.image_size] * 2)
        pixels = serving.to_pixels(image)
        return {"label map": tf.cast(grey, tf.uint8)[..., tf.newaxis], "synthetic": pixels, "real": batch["image"]}


def _plane_table(config: DRGANConfig) -> np.ndarray:
    """float32 [256, K]: the planes of a pixel with each label code."""
    table = np.zeros([256, len(config.channels)], np.float32)
    for channel, name in enumerate(config.channels):
        if name == FIELD_OF_VIEW:
            table[: label_ops.BACKGROUND, channel] = 1.0
        elif name in config.labels:
            table[config.labels.index(name), channel] = 1.0
    return table
