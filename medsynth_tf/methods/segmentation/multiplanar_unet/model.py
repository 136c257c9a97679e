"""The multi-planar U-Net trained on few annotations, and the 3-D U-Net it is compared with, as one Keras model."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.data.transforms import from_unit_range, normalise_intensity, percentile_window
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.masked import masked_binary_cross_entropy
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.best import BestWeights, KeepBest
from medsynth_tf.methods.segmentation.multiplanar_unet import serving
from medsynth_tf.methods.segmentation.multiplanar_unet.config import MultiPlanarUNetConfig
from medsynth_tf.methods.segmentation.multiplanar_unet.data import batches, examples_a_pass, examples_of
from medsynth_tf.methods.segmentation.multiplanar_unet.fusion import ViewFusion, fusion_batches
from medsynth_tf.methods.segmentation.multiplanar_unet.planes import UNKNOWN, annotated_volumes
from medsynth_tf.methods.segmentation.multiplanar_unet.segmenter import THRESHOLD, VolumeSegmenter
from medsynth_tf.methods.segmentation.multiplanar_unet.views import view_frames
from medsynth_tf.methods.stage import Stage
from medsynth_tf.metrics.masked_dice import MaskedDice
from medsynth_tf.networks.multiplanar_unet import MultiPlanarUNet2D
from medsynth_tf.networks.unet3d import UNet3D

Batch = dict[str, tf.Tensor]


class MultiPlanarUNet(Method):
    """Foreground probability of planes, and of volumes by views of several directions.

    Call it on {"image": float32 [B, S, S, 1]} (cubes for `unet3d`) for probabilities float32 of that shape; `segment` does volumes.

    Args:
        config: its settings; S is `planes.size`, or `comparator.size`.
    """

    config_class = MultiPlanarUNetConfig
    config: MultiPlanarUNetConfig

    def __init__(self, config: MultiPlanarUNetConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        own, shared = config.network, config.comparator
        options: dict[str, Any] = {
            "initialiser": own.initialiser,
            "batch_momentum": own.batch_momentum,
            "seed": layer_seed(config.seed, "network"),
            "name": "network",
        }
        self.network: tf.keras.Model
        if config.model == "mpunet2d":
            self.network = MultiPlanarUNet2D(1, own.filters, own.levels, **options)
        else:
            self.network = UNet3D(1, shared.filters, shared.levels, **options)
        self.network(tf.keras.Input([*config.shape, 1]))
        frames = view_frames(config)
        self.fusion = ViewFusion(config, len(frames), name="fusion") if config.views.fusion == "learned" else None
        self.segmenter = VolumeSegmenter(config, self.network, self.network.divisor, frames, self.fusion)
        self.loss_mean = tf.keras.metrics.Mean(name="loss")
        self.dice = MaskedDice()
        self.steps_done = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="steps_done", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.built = True
        kept = list(self.network.variables)
        if config.training.ema_decay is not None:
            self.average = WeightAverage(self.network.variables, config.training.ema_decay)
            kept += self.average.averages
        self.best = BestWeights(kept)
        self.annotated_pixels: int | None = None

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: MultiPlanarUNetConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": float32 [B, S, S, 1], "label": uint8 [B, S, S], "seed": int64 [B]} of planes (cubes for `unet3d`).

        Labels are 0, 1 and 255 (not annotated). Annotation of the training split is n_a planes, of others half as many.

        Signatures take whole volumes, which `Source.read` gives.
        """
        training = split == "train" if training is None else training
        return batches(examples_of(source, config, split, seed, training), config, seed, first_step, epochs, training)

    @classmethod
    def record_requirements(cls, config: MultiPlanarUNetConfig) -> RecordRequirements:
        """Volumes of one channel with label maps and, in millimetre space, spacing."""
        return RecordRequirements(
            names=("mask", "spacing") if config.space == "mm" else ("mask",),
            image_rank=4,
            image_channels=(1,),
            image_dtypes=("uint8", "int16", "uint16", "int32", "float32"),
        )

    # -- training -----------------------------------------------------------------------------------------------------------
    def stages(self, source: Source) -> list[Stage]:
        """'planes', whose best weights on the validation split's planes are kept; then 'fusion', if weights of views are learned.

        Raises:
            DataError: the training split is empty or cannot be annotated.
        """
        config = self.config
        if not source.split("train", config.data.split_fractions, config.seed):
            raise DataError(f"the training split is empty; data.split_fractions = {config.data.split_fractions}")
        held_out = bool(source.split("val", config.data.split_fractions, config.seed))

        @functools.cache
        def examples(split: str) -> Any:
            return examples_of(source, config, split, config.seed, split == "train")

        def of(first_step: int) -> tf.data.Dataset:
            return batches(examples("train"), config, config.seed, first_step, None, True)

        def validation() -> tf.data.Dataset:
            return batches(examples("val"), config, config.seed, 0, 1, False)

        epochs, steps = config.training.epochs, config.training.steps_per_epoch
        if steps is None:
            steps = -(-examples_a_pass(examples("train"), config) // config.training.batch_size)
        callbacks = []
        if held_out:

            def evaluate() -> float:
                return float(self.evaluate(validation(), return_dict=True, verbose=0)["dice"])

            callbacks.append(KeepBest(self.best, "val_dice", epochs, evaluate))

        def begin() -> None:
            self.annotated_pixels = examples("train").annotated_pixels
            for callback in callbacks:
                callback.catch_up(int(self.steps_done.numpy()) // steps)

        stages = [Stage("planes", self, epochs, steps, of, validation if held_out else None, begin, callbacks)]
        if self.fusion is not None:
            stages.append(self._fusion_stage(source, self.fusion))
        return stages

    def _fusion_stage(self, source: Source, fusion: ViewFusion) -> Stage:
        own, seed = self.config.fusion, derive_seed(self.config.seed, "fusion")

        @functools.cache
        def voxels() -> tuple[np.ndarray, np.ndarray]:
            return self.annotated_views(source)

        return Stage(
            name="fusion",
            model=fusion,
            epochs=own.epochs,
            steps_per_epoch=own.steps_per_epoch,
            batches=lambda first_step: fusion_batches(*voxels(), own.batch_size, seed, first_step),
            preview=fusion.preview,
        )

    def annotated_views(self, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """What each view says at the annotated voxels of the training split: float32 [N, K], and their labels uint8 [N]."""

        @tf.function(
            input_signature=[
                tf.TensorSpec([None] * 3, tf.float32),
                tf.TensorSpec([3, 3], tf.float64),
                tf.TensorSpec([None, 3], tf.int64),
            ]
        )
        def at(image: tf.Tensor, axes: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
            def one(view: tf.Tensor) -> tf.Tensor:
                return tf.gather_nd(self.segmenter.probability(image, axes, [view]), places)

            views = tf.range(len(self.segmenter.frames))
            each = tf.map_fn(one, views, fn_output_signature=tf.TensorSpec([None], tf.float32), parallel_iterations=1)
            return tf.transpose(each)

        found, labels = [], []
        for _, volume, _ in annotated_volumes(source, self.config, "train", self.config.seed):
            places = np.argwhere(volume.sparse != UNKNOWN)
            with self.averaged_weights():
                found.append(at(volume.image, volume.place.axes, places).numpy())
            labels.append(volume.sparse[tuple(places.T)])
        return np.concatenate(found), np.concatenate(labels)

    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with the paper's Adam unless another is given."""
        rates = self.config.optimiser
        optimizer = self.with_loss_scale(
            optimizer or self.make_adam(rates.learning_rate, rates.beta_1, rates.beta_2, rates.epsilon)
        )
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=optimizer, **kwargs)
        optimizer.build(self.network.trainable_variables)
        if self.fusion is not None:
            self.fusion.compile(jit_compile=kwargs["jit_compile"])

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Mean loss, and Dice of all annotated pixels."""
        return [self.loss_mean, self.dice]

    # -- forward ------------------------------------------------------------------------------------------------------------
    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """{"image": float32 [B, S, S, 1]} → foreground probability float32 [B, S, S, 1]."""
        return tf.sigmoid(self.network(inputs["image"], training=training))

    def loss_of(self, logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        """Σ m·CE / max(Σ m, 1) over the whole batch, all replicas' together: their mean of this scalar is that quotient.

        Args:
            logits: float32 [B, ..., 1].
            label: uint8 [B, ...], 255 where m = 0.
        """
        known = label != UNKNOWN
        total, count = masked_binary_cross_entropy(logits[..., 0], tf.cast(label == 1, tf.float32), tf.cast(known, tf.float32))
        context = tf.distribute.get_replica_context()
        replicas = 1
        if context is not None and context.num_replicas_in_sync > 1:
            replicas = context.num_replicas_in_sync
            count = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
        return replicas * total / tf.maximum(count, 1.0)

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step on annotated pixels alone."""
        with tf.GradientTape() as tape:
            logits = self.network(batch["image"], training=True)
            loss = self.loss_of(logits, batch["label"])
            objective = self.replica_loss(loss, self.optimizer)
        variables = self.network.trainable_variables
        self.apply(self.optimizer, tape.gradient(objective, variables), variables)
        self.steps_done.assign_add(1)
        if self.average is not None:
            self.average.update()
        measured = self._record(logits, batch["label"], loss)
        if self.annotated_pixels is not None:
            measured["annotated_pixels"] = tf.constant(float(self.annotated_pixels))
        return measured

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Loss and Dice of annotated pixels, without learning."""
        logits = self.network(batch["image"], training=False)
        return self._record(logits, batch["label"], self.loss_of(logits, batch["label"]))

    def _record(self, logits: tf.Tensor, label: tf.Tensor, loss: tf.Tensor) -> dict[str, tf.Tensor]:
        self.loss_mean.update_state(loss)
        self.dice.update_state(tf.sigmoid(logits[..., 0]) > THRESHOLD, label == 1, label != UNKNOWN)
        return {"loss": self.loss_mean.result(), "dice": self.dice.result()}

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def segment(self, volume: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One volume [D, H, W] with spacing [3] in millimetres → foreground probability float32 and mask uint8 [D, H, W]."""
        batch = (tf.constant(np.asarray(values)[np.newaxis], tf.float32) for values in (volume, spacing))
        made = self._serving_default(*batch)
        return made["probability"][0].numpy(), made["mask"][0].numpy()

    @functools.cached_property
    def _serving_default(self) -> Any:
        return self.signatures()["serving_default"]

    def signatures(self) -> dict[str, Any]:
        """See `serving.signatures`."""
        return serving.signatures(self.segmenter)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature: a small bright ball."""
        return serving.example_inputs(self.segmenter)

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Planes, their annotation (grey: none, black and white: labels) and probabilities, uint8 [B, S, S, 1]; of cubes the middle."""
        with self.averaged_weights():
            found = self(batch)
        image, label = batch["image"], batch["label"]
        if image.shape.rank == 5:
            middle = image.shape[1] // 2
            image, label, found = image[:, middle], label[:, middle], found[:, middle]
        grey = from_unit_range(normalise_intensity(image, percentile_window(image)))
        codes = tf.where(label == UNKNOWN, 96, tf.where(label == 1, 255, 0))
        return {
            "image": grey,
            "annotation": tf.cast(codes, tf.uint8)[..., tf.newaxis],
            "probability": from_unit_range(2.0 * found - 1.0),
        }
