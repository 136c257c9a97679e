"""A generator of patches and the classifier that it helps, trained together in one step, as one Keras model."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.augmentation.tvps import serving
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig
from medsynth_tf.methods.augmentation.tvps.data import batches, translation_batches
from medsynth_tf.methods.augmentation.tvps.learning import Batch, OnlineLearning, mean_accuracy, to_unit
from medsynth_tf.methods.augmentation.tvps.networks import PartialDecoder, PartialEncoder, PatchScorer
from medsynth_tf.methods.augmentation.tvps.synthesis import Generated, Holes, draw_holes, generate
from medsynth_tf.methods.augmentation.tvps.translator import CycleTranslator, IdentityTranslator
from medsynth_tf.methods.augmentation.tvps.vessels import make_extractor
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.schedules import CosineDecay, LinearDecay
from medsynth_tf.methods.stage import Stage
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.ops.patch_masks import compose, hole_weight


class TVPS(OnlineLearning, Method):
    """A classifier whose training images are extended online by synthetic parts, or by a baseline's mixing.

    Call it on {"image": uint8 [B, S, S, C], "seed": int64 [B]}, and "vessels" uint8 [B, S, S] where maps come from record masks,
    for compositions float32 [B, S, S, C] in [-1, 1]; without a generator, for logits [B, K].

    `translator` may be replaced, before training, by any Keras model from maps [B, S, S, 1] in [0, 1] to images in [-1, 1]; stage A
    is then left out.

    Args:
        config: its settings; S is `image_size`.
    """

    config_class = TVPSConfig
    config: TVPSConfig
    GENERATOR_LOSSES: ClassVar[tuple[str, ...]] = (
        "reconstruction_hole",
        "reconstruction_context",
        "kl_component",
        "kl_gaussian",
        "generator",
        "discriminator",
        "discriminator_accuracy",
        "task",
        "task_gradient_ratio",
        "classifier_synthetic",
    )

    def __init__(self, config: TVPSConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        size, seed = config.image_size, config.seed
        self.classifier = ImageClassifier(
            config.classifier.backbone,
            config.classes,
            config.channels,
            config.classifier.filters,
            config.classifier.weights,
            seed=layer_seed(seed, "classifier"),
            name="classifier",
        )
        self.encoder: PartialEncoder | None = None
        self.decoder: PartialDecoder | None = None
        self.discriminator: PatchScorer | None = None
        self.translator: tf.keras.layers.Layer | None = None
        self.extractor = make_extractor(config)
        if config.synthesises:
            self._make_generator()
        # how long the schedule is; `stages` sets it, and without them training.epochs of training.steps_per_epoch count
        steps = config.training.epochs * (config.training.steps_per_epoch or 1)
        self.total_steps = tf.Variable(steps, dtype=tf.int64, trainable=False, name="total_steps")
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self._measures()}
        self.classifier(tf.keras.Input([size, size, config.channels]))
        self.built = True
        if config.training.ema_decay is not None:
            followed = [v for network in (self.classifier, self.encoder, self.decoder) if network for v in network.variables]
            self.average = WeightAverage([v for v in followed if v.dtype.is_floating], config.training.ema_decay)

    def _make_generator(self) -> None:
        config, own = self.config, self.config.generator
        size, seed, channels = config.image_size, config.seed, config.map_channels
        shape: dict[str, Any] = {
            "size": size,
            "levels": own.levels,
            "filters": own.filters,
            "depth": own.depth,
            "kernel": own.kernel,
            "norm": own.norm,
        }
        self.encoder = PartialEncoder(
            **shape,
            hidden=own.hidden,
            components=own.components,
            latent=own.latent,
            log_variance_range=own.log_variance_range,
            seed=layer_seed(seed, "encoder"),
            name="encoder",
        )
        self.decoder = PartialDecoder(
            **shape, channels=channels, shortcuts=own.shortcuts, seed=layer_seed(seed, "decoder"), name="decoder"
        )
        maps, _ = self.encoder(tf.keras.Input([size, size, channels + 1]))
        self.decoder((tf.keras.Input([own.latent]), maps))
        if config.losses.adversarial:
            scorer = config.discriminator
            self.discriminator = PatchScorer(
                scorer.layers, scorer.filters, layer_seed(seed, "discriminator"), name="discriminator"
            )
            side = scorer.patch if scorer.scope == "patch" else size
            self.discriminator(tf.keras.Input([side, side, channels]))
        self.translator = CycleTranslator(config, name="translator") if config.translates else IdentityTranslator()

    def _measures(self) -> list[str]:
        names = ["classifier_real", "accuracy"]
        if not self.config.synthesises:
            return names
        unused = set() if self.discriminator else {"generator", "discriminator", "discriminator_accuracy"}
        if not self.config.losses.task:
            unused |= {"task", "task_gradient_ratio"}
        if not self.config.generator.variational:
            unused |= {"kl_component", "kl_gaussian"}
        usage = [f"component_{k}" for k in range(self.config.generator.components)]
        return [*names, *(name for name in self.GENERATOR_LOSSES if name not in unused), *usage]

    # -- data and schedule --------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: TVPSConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, S, S, C], "label": int64 [B], "seed": int64 [B]}; with a translator "vessels" uint8
        [B, S, S]."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: TVPSConfig) -> RecordRequirements:
        """8-bit images with a class; with a mask where vessels come from it."""
        masks = ("mask",) if config.translates and config.vessels.source == "mask" else ()
        return RecordRequirements(names=("label", *masks), labels=config.classes)

    def stages(self, source: Source) -> list[Stage]:
        """'translator' (CycleGAN on vessel maps and images, in the domain 'vessel') and 'classifier', the online loop."""
        rates = self.config.classifier
        schedule: list[tf.keras.callbacks.Callback] = []
        if rates.optimiser == "sgd":
            schedule.append(CosineDecay(self.classifier_optimizer, rates.learning_rate, self.config.training.epochs))
        online = self.stage("classifier", source, callbacks=schedule)
        steps = online.steps

        def begin() -> None:
            with self.distribute_strategy.scope():
                self.total_steps.assign(steps)

        stages = [Stage(**{**vars(online), "begin": begin})]
        if isinstance(self.translator, CycleTranslator):
            stages.insert(0, self._translator_stage(source, self.translator))
        return stages

    def _translator_stage(self, source: Source, translator: CycleTranslator) -> Stage:
        config, own = self.config, self.config.translator
        records = len(source.split("train", config.data.split_fractions, config.seed))
        optimisers = [(o, own.learning_rate) for o in (translator.generator_optimizer, translator.discriminator_optimizer)]
        return Stage(
            name="translator",
            model=translator,
            epochs=own.epochs,
            steps_per_epoch=own.steps_per_epoch or max(1, records // own.batch_size),
            batches=lambda first_step: translation_batches(source, config, config.seed, first_step),
            callbacks=[LinearDecay(optimisers, own.epochs, own.decay_epochs)] if own.decay_epochs else [],
            preview=translator.preview,
        )

    def compile(
        self,
        generator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: tf.keras.optimizers.Optimizer | None = None,
        classifier_optimizer: tf.keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's, with the card's optimisers unless others are given."""
        rates, own = self.config.optimiser, self.config.classifier
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        if classifier_optimizer is None and own.optimiser == "sgd":
            clip = self.config.training.clip_norm
            classifier_optimizer = tf.keras.optimizers.SGD(own.learning_rate, own.momentum, global_clipnorm=clip)
        self.classifier_optimizer = self.with_loss_scale(classifier_optimizer or self.make_adam(own.learning_rate, 0.9, 0.999))
        super().compile(optimizer=self.classifier_optimizer, **kwargs)
        self.classifier_optimizer.build(self.classifier.trainable_variables)
        if not self.config.synthesises:
            return
        self.generator_optimizer = self.with_loss_scale(
            generator_optimizer or self.make_adam(rates.learning_rate, rates.beta_1, rates.beta_2)
        )
        self.generator_optimizer.build(self.generator_variables)
        if self.discriminator is not None:
            self.discriminator_optimizer = self.with_loss_scale(
                discriminator_optimizer or self.make_adam(rates.learning_rate, rates.beta_1, rates.beta_2)
            )
            self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        if isinstance(self.translator, CycleTranslator):
            self.translator.compile(jit_compile=kwargs["jit_compile"])

    @property
    def tuned_variables(self) -> list[tf.Variable]:
        """Variables of the translator that stage B goes on training."""
        return self.translator.to_second.trainable_variables if self._finetunes else []  # type: ignore[union-attr]

    @property
    def _finetunes(self) -> bool:
        return self.config.translator.finetune and isinstance(self.translator, CycleTranslator)

    @property
    def generator_variables(self) -> list[tf.Variable]:
        """φ and θ: of encoder and decoder, and of the translator if it is fine-tuned."""
        if self.encoder is None or self.decoder is None:
            return []
        return self.encoder.trainable_variables + self.decoder.trainable_variables + self.tuned_variables

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses and of what else is watched."""
        return list(self.loss_means.values())

    # -- forward ------------------------------------------------------------------------------------------------------------
    def maps_of(self, batch: Batch) -> tf.Tensor:
        """What patches are made of: vessel maps or the image, float32 [B, S, S, C] in [0, 1].

        Vessel maps are the batch's "vessels" if it has them, else those of the extractor.
        """
        if self.config.domain == "image":
            return tf.cast(batch["image"], tf.float32) / 255.0
        if "vessels" in batch:
            return tf.cast(batch["vessels"], tf.float32)[..., tf.newaxis] / 255.0
        assert self.extractor is not None  # without one, serving and batches have "vessels"
        return self.extractor(batch["image"])

    def generate(self, maps: tf.Tensor, visible: tf.Tensor, seeds: tf.Tensor, **options: Any) -> Generated:
        """`synthesis.generate` with this model's generator."""
        assert self.encoder is not None
        assert self.decoder is not None
        return generate(self.config, self.encoder, self.decoder, maps, visible, seeds, **options)

    def finish_map(self, raw: tf.Tensor, maps: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
        """V̂ = m ⊙ V + (1 - m) ⊙ σ(ŷ), without σ for images: float32 [B, S, S, C]."""
        made = tf.sigmoid(raw) if self.config.domain == "vessel" else raw
        return compose(maps, made, 1.0 - keep)

    def compose(self, image: tf.Tensor, finished: tf.Tensor, keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Translates V̂ to Î, and lays it into the hole of I: (Ĩ, Î), each float32 [B, S, S, C] in [-1, 1].

        Args:
            image: uint8 [B, S, S, C].
            finished: V̂.
            keep: the mask.
        """
        assert self.translator is not None
        generated = tf.cast(self.translator(finished, training=False), tf.float32)
        weight = hole_weight(keep, self.config.masks.feather)
        return compose(to_unit(image), generated, weight), generated

    def synthesize(
        self,
        batch: Batch,
        n: int = 1,
        mask: tf.Tensor | None = None,
        component: tf.Tensor | None = None,
        most_likely: bool = False,
    ) -> dict[str, tf.Tensor]:
        """n compositions of each image; they keep its label.

        Args:
            batch: {"image": uint8 [B, S, S, C], "seed": int64 [B]} and, where maps come from masks, "vessels".
            n: how many; the first is that of `call`.
            mask: [B, S, S], 1 keeps a pixel, 0 makes it anew; None draws holes, others for each composition.
            component: int [B], which Gaussian of the mixture; -1 draws it. None draws all.
            most_likely: the likeliest Gaussian's mean, in holes that the seed decides.

        Returns:
            {"image": [B, n, S, S, C] float32 in [-1, 1], "mask": [B, n, S, S] float32, "map": V̂ [B, n, S, S, C], "generated": Î, all
            of it translated [B, n, S, S, C], "component": ω [B, n, K]}.
        """
        maps = self.maps_of(batch)
        drawn: list[dict[str, tf.Tensor]] = []
        for index in range(n):
            shift = derive_seed(0, "variant", index) if index else 0
            seeds = tf.bitwise.bitwise_xor(batch["seed"], tf.constant(shift, tf.int64))
            if mask is None:
                holes = draw_holes(self.config.masks, batch["image"], seeds)
            else:
                keep = tf.cast(mask, tf.float32)[..., tf.newaxis]
                holes = Holes(keep, keep)
            made = self.generate(maps, holes.visible, seeds, component=component, most_likely=most_likely)
            finished = self.finish_map(made.raw, maps, holes.keep)
            composition, generated = self.compose(batch["image"], finished, holes.keep)
            drawn.append(
                {
                    "image": composition,
                    "mask": holes.keep[..., 0],
                    "map": finished,
                    "generated": generated,
                    "component": made.component,
                }
            )
        return {name: tf.stack([one[name] for one in drawn], axis=1) for name in drawn[0]}

    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Compositions [B, S, S, C] float32 in [-1, 1], one of each image; without a generator logits [B, K]."""
        if not self.config.synthesises:
            return self.logits(inputs["image"], training)
        return self.synthesize(inputs)["image"][:, 0]

    def logits(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        """uint8 [B, S, S, C] → float32 [B, K]."""
        return self.classifier(to_unit(image), training=training)["logits"]

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Discriminator, generator, classifier, one after the other; or the classifier alone on mixed images."""
        measured = self.online_step(batch) if self.config.synthesises else self.baseline_step(batch)
        if self.average is not None:
            self.average.update()
        return self._record(measured)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The classifier's loss and accuracy on images, and, with a generator, on compositions, without learning."""
        logits = self.logits(batch["image"])
        measured = {"classifier_real": cross_entropy(logits, batch["label"]), "accuracy": mean_accuracy(logits, batch["label"])}
        if self.config.synthesises:
            maps, holes = self.maps_of(batch), draw_holes(self.config.masks, batch["image"], batch["seed"])
            made = self.generate(maps, holes.visible, batch["seed"])
            errors = self.reconstruction(made.raw, maps, holes.visible)
            composition, _ = self.compose(batch["image"], self.finish_map(made.raw, maps, holes.keep), holes.keep)
            measured |= {
                "reconstruction_hole": errors["hole"],
                "reconstruction_context": errors["context"],
                "classifier_synthetic": cross_entropy(self.classifier(composition)["logits"], batch["label"]),
                "kl_component": tf.reduce_mean(made.kl_component),
                "kl_gaussian": tf.reduce_mean(made.kl_gaussian),
                **self.usage(made),
            }
        return self._record(measured)

    def _record(self, measured: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        chosen = {name: mean for name, mean in self.loss_means.items() if name in measured}
        return recorded(chosen, measured)

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """See `serving.signatures`."""
        return serving.signatures(self)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature: a grey image."""
        return serving.example_inputs(self.config)

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Image, hole, what is made and the composition, each uint8 [B, S, S, 1 or 3]; of a baseline, image and mixed image."""
        if not self.config.synthesises:
            return {"image": batch["image"], "mixed": from_unit_range(self.mix(batch)[0])}
        with self.averaged_weights():
            made = {name: value[:, 0] for name, value in self.synthesize(batch).items()}
        pictures = {"image": batch["image"], "mask": tf.cast(made["mask"] * 255, tf.uint8)[..., tf.newaxis]}
        if self.config.domain == "vessel":
            pictures |= {
                name: from_unit_range(2 * maps - 1) for name, maps in (("vessels", self.maps_of(batch)), ("map", made["map"]))
            }
        return pictures | {"generated": from_unit_range(made["generated"]), "synthetic": from_unit_range(made["image"])}
