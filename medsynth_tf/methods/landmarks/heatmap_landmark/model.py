"""One heatmap for all landmarks of a frame; points found in it again; the simulator's frames made to look like the operation's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.heatmap import heatmap_loss
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.best import BestWeights, KeepBest
from medsynth_tf.methods.cycle_gan import CycleGAN
from medsynth_tf.methods.landmarks.heatmap_landmark.augmentation import augment
from medsynth_tf.methods.landmarks.heatmap_landmark.config import HeatmapLandmarkConfig
from medsynth_tf.methods.landmarks.heatmap_landmark.data import batches, keys_of, unpaired
from medsynth_tf.methods.landmarks.heatmap_landmark.decoding import decode
from medsynth_tf.methods.schedules import WarmupCosine
from medsynth_tf.methods.stage import Stage
from medsynth_tf.metrics.points import PointF1
from medsynth_tf.networks.heatmap_unet import PlainHeatmapUNet, ResNeXtUNet
from medsynth_tf.ops.heatmaps import gaussian_heatmaps
from medsynth_tf.ops.markers import draw_crosses

Batch = dict[str, tf.Tensor]


class FrameTranslator(CycleGAN):
    """CycleGAN from simulator frames to intra-operative ones."""

    def __init__(self, config: HeatmapLandmarkConfig, **kwargs: Any):
        own = config.translator
        super().__init__(
            config,
            [config.image_height, config.image_width],
            (3, 3),
            own.filters,
            own.blocks,
            own.cycle,
            own.identity,
            own.learning_rate,
            own.beta_1,
            names=("sim", "intraop"),
            scorer={"sigmoid": own.sigmoid, "reflect": True},
            seed=layer_seed(config.seed, "translator"),
            **kwargs,
        )

    def domains(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Frames of {"sim", "intraop": uint8 [B, H, W, 3], …}, in [-1, 1]."""
        sim, intraop = (tf.cast(batch[name], tf.float32) / 127.5 - 1.0 for name in ("sim", "intraop"))
        return sim, intraop

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Frames of both domains and what they become, each uint8 [B, H, W, 3]."""
        sim, intraop = self.domains(batch)
        return {
            "simulator": batch["sim"],
            "synthetic operation": from_unit_range(self.to_second(sim)),
            "operation": batch["intraop"],
            "synthetic simulator": from_unit_range(self.to_first(intraop)),
        }


class HeatmapLandmark(Method):
    """A detector of any number of landmarks; with `train_domains` 'intraop+translated_sim' and a translator of frames.

    Call it on {"image": uint8 [B, H, W, 3]} for logits of the heatmap, float32 [B, H, W].

    Args:
        config: its settings.
    """

    config_class = HeatmapLandmarkConfig
    config: HeatmapLandmarkConfig

    def __init__(self, config: HeatmapLandmarkConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        own, seed = config.detector, layer_seed(config.seed, "detector")
        if own.encoder == "plain":
            self.detector: tf.keras.Model = PlainHeatmapUNet(own.widths, own.head_kernel, seed, name="detector")
        else:
            self.detector = ResNeXtUNet(own.head_kernel, seed, name="detector")
        self.detector(tf.keras.Input([config.image_height, config.image_width, 3]))
        if own.weights is not None:
            self.detector.load_weights(own.weights)
        self.translator = FrameTranslator(config, name="translator") if config.translates else None
        self.loss_mean = tf.keras.metrics.Mean(name="loss")
        self.f1 = PointF1(config.matching_radius, name="f1")
        self.best = BestWeights(self.detector.variables)
        self.built = True
        if config.training.ema_decay is not None:
            followed = [v for v in self.detector.variables if v.dtype.is_floating]
            self.average = WeightAverage(followed, config.training.ema_decay)

    # -- data and stages ----------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: HeatmapLandmarkConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, H, W, 3], "landmarks": float32 [B, P, 2] in pixels of the resized image, NaN in rows that
        are none, "seed": int64 [B]}; augmented inside the train step."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: HeatmapLandmarkConfig) -> RecordRequirements:
        """8-bit RGB frames with landmarks; with their domain where batches have two."""
        domain = ("label",) if config.mixes else ()
        return RecordRequirements(names=("landmarks", *domain), image_channels=(3,))

    def stages(self, source: Source) -> list[Stage]:
        """'translator' where frames are translated, and 'detector', which ends with the weights of the best validation F1."""
        config, rates = self.config, self.config.optimiser
        epochs = config.training.epochs
        callbacks: list[tf.keras.callbacks.Callback] = []
        if rates.warmup_epochs:
            callbacks.append(
                WarmupCosine(
                    self.optimizer, rates.learning_rate, epochs, rates.warmup_epochs, rates.warmup_start == "first_fifth"
                )
            )
        held_out = keys_of(source, config, "val", config.domain)
        keeper: KeepBest | None = None
        if held_out:
            keeper = KeepBest(self.best, "val_f1", epochs, lambda: self.judge(source, "val"))
            callbacks.append(keeper)
        available = len(keys_of(source, config, "train", config.domain))
        own_share = config.training.batch_size - (config.simulated_in_batch if config.domain == "intraop" else 0)
        steps = config.training.steps_per_epoch or max(1, available // own_share)

        def begin() -> None:
            if keeper is not None:
                keeper.catch_up(int(self.optimizer.iterations.numpy()) // steps)

        detector = Stage(
            name="detector",
            model=self,
            epochs=epochs,
            steps_per_epoch=steps,
            batches=lambda first_step: self.dataset(source, config, "train", config.seed, first_step, epochs=None),
            validation=(lambda: self.dataset(source, config, "val", config.seed)) if held_out else None,
            begin=begin,
            callbacks=callbacks,
        )
        if self.translator is None:
            return [detector]
        translator, own = self.translator, config.translator
        larger = max(len(keys_of(source, config, "train", domain)) for domain in ("sim", "intraop"))
        return [
            Stage(
                name="translator",
                model=translator,
                epochs=own.epochs,
                steps_per_epoch=own.steps_per_epoch or max(1, larger // own.batch_size),
                batches=lambda first_step: unpaired(source, config, config.seed, first_step),
                preview=translator.preview,
            ),
            detector,
        ]

    def judge(self, source: Source, split: str) -> float:
        """F1 of the detector as it is, on the records of a split."""
        return float(self.evaluate(self.dataset(source, self.config, split), verbose=0, return_dict=True)["f1"])

    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with AdamW unless another optimiser is given."""
        own, training = self.config.optimiser, self.config.training
        kwargs.setdefault("jit_compile", training.jit_compile)
        if optimizer is None:
            optimizer = tf.keras.optimizers.AdamW(
                own.learning_rate, weight_decay=own.weight_decay, global_clipnorm=training.clip_norm
            )
        super().compile(optimizer=self.with_loss_scale(optimizer), **kwargs)
        self.optimizer.build(self.detector.trainable_variables)
        if self.translator is not None:
            self.translator.compile(jit_compile=kwargs["jit_compile"])

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The mean loss, and in validation F1."""
        return [self.loss_mean, self.f1]

    # -- forward ------------------------------------------------------------------------------------------------------------
    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """{"image": uint8 [B, H, W, 3]} → logits float32 [B, H, W]."""
        return self.detector(to_unit(inputs["image"]), training=training)[..., 0]

    def targets(self, landmarks: tf.Tensor) -> tf.Tensor:
        """Landmarks float32 [B, P, 2] → heatmaps float32 [B, H, W] in [0, 1]."""
        own, size = self.config.heatmap, (self.config.image_height, self.config.image_width)
        return gaussian_heatmaps(landmarks, size, own.variance, own.compose)

    def probability(self, image: tf.Tensor) -> tf.Tensor:
        """Images uint8 [B, H, W, 3] → heatmaps float32 [B, H, W], with the decoder's averaging over mirrors if it is on."""
        images = to_unit(image)
        if not self.config.decoder.flips:
            return tf.sigmoid(self.detector(images)[..., 0])
        total = tf.zeros(tf.shape(image)[:3])
        for axes in ([], [1], [2], [1, 2]):
            logits = self.detector(tf.reverse(images, axes) if axes else images)[..., 0]
            total += tf.reverse(logits, axes) if axes else logits
        return tf.sigmoid(total / 4.0)

    def locate(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images uint8 [B, H, W, 3] → `decode`'s points and counts, and the "heatmap" they come from, float32 [B, H, W]."""
        heatmap = self.probability(image)
        return {**decode(heatmap, self.config.decoder), "heatmap": heatmap}

    # -- steps --------------------------------------------------------------------------------------------------------------
    def prepared(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Images float32 [B, H, W, 3] in [0, 1], the first ones translated, all augmented; and their heatmaps [B, H, W]."""
        images = to_unit(batch["image"])
        if self.translator is not None:
            count = self.config.simulated_in_batch
            translated = self.translator(2.0 * images[:count] - 1.0)
            images = tf.concat([(tf.stop_gradient(translated) + 1.0) / 2.0, images[count:]], 0)
        images, points = augment(images, batch["landmarks"], batch["seed"], self.config.augmentation, self.config.data)
        return images, self.targets(points)

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of the detector on a batch of `dataset`."""
        images, target = self.prepared(batch)
        with tf.GradientTape() as tape:
            logits = self.detector(images, training=True)[..., 0]
            loss = heatmap_loss(logits, target, self.config.heatmap.loss)
            objective = self.replica_loss(loss, self.optimizer)
        variables = self.detector.trainable_variables
        self.apply(self.optimizer, tape.gradient(objective, variables), variables)
        if self.average is not None:
            self.average.update()
        self.loss_mean.update_state(loss)
        return {"loss": self.loss_mean.result()}

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Loss and F1 of a validation batch, as it is."""
        logits = self({"image": batch["image"]})
        self.loss_mean.update_state(heatmap_loss(logits, self.targets(batch["landmarks"]), self.config.heatmap.loss))
        found = self.locate(batch["image"])
        self.f1.update_state(batch["landmarks"], found["points"], found["count"])
        return {"loss": self.loss_mean.result(), "f1": self.f1.result()}

    # -- serving ------------------------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """`serving_default`: image uint8 [B, H, W, 3] → points float32 [B, P, 2] (row, column; -1 in rows that are not used), count
        int32 [B], heatmap float32 [B, H, W]. `translate`, with a translator: image → image uint8, as if of an operation."""
        spec = tf.TensorSpec([None, self.config.image_height, self.config.image_width, 3], tf.uint8, name="image")

        def checked(image: tf.Tensor) -> tf.Tensor:
            positive = tf.debugging.assert_positive(tf.shape(image)[0], "image: the batch is empty")
            with tf.control_dependencies([positive]):  # before anything runs
                return tf.identity(image)

        def locate(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.locate(checked(image))

        named = {"serving_default": tf.function(locate, input_signature=[spec])}
        if self.translator is not None:
            translator = self.translator

            def translate(image: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"image": from_unit_range(translator(tf.cast(checked(image), tf.float32) / 127.5 - 1.0))}

            named["translate"] = tf.function(translate, input_signature=[spec])
        return named

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """A grey frame with a bright spot, for each signature."""
        image = np.full([1, self.config.image_height, self.config.image_width, 3], 96, np.uint8)
        image[:, 6:10, 6:10] = 250
        return {name: {"image": image} for name in (["serving_default"] + ["translate"] * self.config.translates)}

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Frames with their landmarks, target and found heatmaps, and the points found."""
        found = self.locate(batch["image"])

        def grey(heatmap: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.round(255.0 * heatmap), tf.uint8)[..., tf.newaxis]

        there = tf.range(self.config.decoder.max_points) < found["count"][:, tf.newaxis]
        points = tf.where(there[..., tf.newaxis], found["points"], float("nan"))
        return {
            "landmarks": draw_crosses(batch["image"], batch["landmarks"]),
            "target": grey(self.targets(batch["landmarks"])),
            "heatmap": grey(found["heatmap"]),
            "found": draw_crosses(batch["image"], points),
        }


def to_unit(image: tf.Tensor) -> tf.Tensor:
    """uint8 → float32 in [0, 1]."""
    return tf.cast(image, tf.float32) / 255.0
