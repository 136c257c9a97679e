"""A detector that separates compound figures into panels, trained on figures simulated of single panels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.detection.simcfs import anchors as anchor_tools
from medsynth_tf.methods.detection.simcfs.augmentation import augment
from medsynth_tf.methods.detection.simcfs.config import SimCFSConfig
from medsynth_tf.methods.detection.simcfs.data import batches, figures_of
from medsynth_tf.methods.detection.simcfs.detection import Detections, crops, decode, fuse, letterbox, suppress
from medsynth_tf.methods.detection.simcfs.objective import losses
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.schedules import LinearWarmup
from medsynth_tf.methods.stage import Stage
from medsynth_tf.networks.yolo import YOLO
from medsynth_tf.ops.boxes import sizes

Batch = dict[str, tf.Tensor]
_ANCHOR_BOXES = 2000  # boxes of the training set that anchors are judged by, at least


class SimCFS(Method):
    """YOLOv5 with the side loss.

    Call it on {"image": uint8 [B, S, S, 3]} for the heads' logits, a list of [B, h, w, A, 5 + classes].

    Args:
        config: its settings.
    """

    config_class = SimCFSConfig
    config: SimCFSConfig

    def __init__(self, config: SimCFSConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        own = config.network
        given = np.asarray(own.anchors, np.float32).reshape(config.levels, -1, 2)[..., ::-1]  # (height, width)
        self.anchors = tf.Variable(
            given, trainable=False, name="anchors", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.network = YOLO(
            5 + config.classes,
            given.shape[1],
            own.width,
            own.depth,
            config.levels,
            layer_seed(config.seed, "network"),
            name="network",
        )
        self.network(tf.keras.Input([config.image_size, config.image_size, 3]))
        if own.weights is not None:
            self.network.load_weights(own.weights)
        names = ["loss", "box", "objectness", *(["classification"] if config.classes > 1 else []), "side"]
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in names}
        self.built = True
        if config.training.ema_decay is not None:
            followed = [v for v in self.network.variables if v.dtype.is_floating]
            self.average = WeightAverage(followed, config.training.ema_decay, ramp=config.optimiser.average_ramp)

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: SimCFSConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches as `data.batches` says; mosaics, moves and colours happen inside the train step."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: SimCFSConfig) -> RecordRequirements:
        """8-bit panels with a class, or figures with boxes."""
        if config.training_data == "real":
            return RecordRequirements(names=("boxes", "box_labels"))
        return RecordRequirements(names=("label",))

    def stages(self, source: Source) -> list[Stage]:
        """One fit, before which anchors are estimated anew if the given ones fit badly."""
        config, rates = self.config, self.config.optimiser
        figures, keys = figures_of(source, config, "train")
        steps = config.training.steps_per_epoch or max(1, len(keys) // config.training.batch_size)
        epochs = config.training.epochs
        warmup = max(round(rates.warmup_epochs * steps), rates.warmup_steps) if rates.warmup_epochs else 0
        callbacks: list[tf.keras.callbacks.Callback] = []
        if rates.kind == "sgd":
            final = rates.final_rate

            def factor(step: int) -> float:
                epoch = step // steps
                return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))

            callbacks.append(
                LinearWarmup(
                    [(self.optimizer, 0.0), (self.bias_optimizer, rates.warmup_bias_rate)],
                    rates.learning_rate,
                    warmup,
                    factor,
                    momentum=(rates.warmup_momentum, rates.momentum),
                )
            )
        held_out = source.split("val", config.data.split_fractions, config.seed)

        def begin() -> None:
            if config.network.auto_anchors and int(self.optimizer.iterations.numpy()) == 0:
                self.fit_anchors(figures, keys)

        return [
            Stage(
                name="detector",
                model=self,
                epochs=epochs,
                steps_per_epoch=steps,
                batches=lambda first_step: self.dataset(source, config, "train", config.seed, first_step, epochs=None),
                validation=(lambda: self.dataset(source, config, "val", config.seed)) if held_out else None,
                begin=begin,
                callbacks=callbacks,
            )
        ]

    def fit_anchors(self, figures: Source, keys: Any) -> float:
        """Estimates anchors anew if the best possible recall of the training boxes is below 0.98; returns the recall before."""
        found: list[np.ndarray] = []
        for key in keys:
            record = figures.read(key)
            boxes = record["boxes"] * (self.config.image_size / max(record["image"].shape[:2]))
            found.append(sizes(tf.constant(boxes)).numpy()[:, ::-1])
            if sum(map(len, found)) >= _ANCHOR_BOXES:
                break
        widths = np.concatenate(found)
        own = self.anchors.numpy()
        ratio = self.config.losses.anchor_ratio
        recall = anchor_tools.best_possible_recall(widths, own.reshape(-1, 2)[:, ::-1], ratio)
        if recall < anchor_tools.LEAST_RECALL and len(widths) >= own.size // 2:
            estimated = anchor_tools.estimate_anchors(widths, own.size // 2, ratio, self.config.seed)
            self.anchors.assign(estimated[:, ::-1].reshape(own.shape))
        return recall

    # -- optimisers ---------------------------------------------------------------------------------------------------------
    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with the configuration's optimisers: of kernels and scales, and of biases, whose warm-up differs."""
        own = self.config.optimiser

        def make() -> tf.keras.optimizers.Optimizer:
            if own.kind == "adam":
                return self.with_loss_scale(self.make_adam(own.learning_rate, own.momentum, 0.999))
            momentum = tf.Variable(own.momentum, trainable=False, name="momentum")  # warm-up changes it
            clip = self.config.training.clip_norm
            return self.with_loss_scale(
                tf.keras.optimizers.SGD(own.learning_rate, momentum=momentum, nesterov=True, global_clipnorm=clip)
            )

        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        self.bias_optimizer = make()
        super().compile(optimizer=make(), **kwargs)
        self.optimizer.build(self.kernels)
        self.bias_optimizer.build(self.biases)

    @property
    def kernels(self) -> list[tf.Variable]:
        """Kernels of convolutions and scales of norms."""
        biases = {v.ref() for v in self.biases}
        return [v for v in self.network.trainable_variables if v.ref() not in biases]

    @property
    def biases(self) -> list[tf.Variable]:
        """Biases of the heads and shifts of norms."""
        return [v for v in self.network.trainable_variables if v.name.split("/")[-1].split(":")[0] in ("bias", "beta")]

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    # -- forward and steps --------------------------------------------------------------------------------------------------
    def call(self, inputs: Batch, training: bool = False) -> list[tf.Tensor]:
        """{"image": uint8 [B, S, S, 3]} → logits of each level."""
        return self.network(tf.cast(inputs["image"], tf.float32) / 255.0, training=training)

    def weighted(self, parts: dict[str, tf.Tensor]) -> tf.Tensor:
        """λ1 L_box + λ2 L_obj + λ3 L_cls + λ4 L_side (paper, eq. 6)."""
        return tf.add_n([gain * parts[name] for name, gain in self.config.gains().items()])

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step on an augmented batch."""
        config = self.config
        images = tf.cast(batch["image"], tf.float32) / 255.0
        images, boxes, labels = augment(
            images, batch["boxes"], batch["labels"], batch["seed"], config.augmentation, config.data
        )
        with tf.GradientTape() as tape:
            parts = losses(self.network(images, training=True), self.anchors, boxes, labels, config)
            parts["loss"] = self.weighted(parts)
            objective = parts["loss"]
            if config.losses.times_batch:
                objective *= tf.cast(config.training.batch_size, tf.float32)
            objective = self.replica_loss(objective, self.optimizer)
        kernels, biases = self.kernels, self.biases
        gradients = tape.gradient(objective, kernels + biases)
        decayed = [
            gradient + self._loss_scale() * config.optimiser.weight_decay / self._replicas() * variable
            if variable.shape.rank == 4 and config.optimiser.weight_decay
            else gradient
            for gradient, variable in zip(gradients, kernels)
        ]
        self.apply(self.optimizer, decayed, kernels)
        self.apply(self.bias_optimizer, gradients[len(kernels) :], biases)
        if self.average is not None:
            self.average.update()
        return recorded(self.loss_means, parts)

    def _replicas(self) -> int:
        return self.distribute_strategy.num_replicas_in_sync

    def _loss_scale(self) -> tf.Tensor:
        scaled = isinstance(self.optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
        return self.optimizer.loss_scale if scaled else tf.constant(1.0)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The losses of a batch as it is."""
        parts = losses(self(batch), self.anchors, batch["boxes"], batch["labels"], self.config)
        return recorded(self.loss_means, {**parts, "loss": self.weighted(parts)})

    # -- inference ----------------------------------------------------------------------------------------------------------
    def detect(self, image: tf.Tensor, confidence: float | None = None, overlap: float | None = None) -> dict[str, tf.Tensor]:
        """Panels of figures.

        Args:
            image: uint8 [B, H, W, 3], of any one size.
            confidence, overlap: default: the configuration's.

        Returns:
            As `detection.suppress`, boxes in pixels of the figures, cut at their borders.
        """
        own = self.config.detection
        fitted, how = letterbox(image, self.config.image_size)
        boxes, scores = decode(self.network(fitted), self.anchors)
        found = suppress(
            boxes,
            scores,
            own.confidence if confidence is None else confidence,
            own.overlap if overlap is None else overlap,
            own.most,
        )
        limits = tf.cast(tf.shape(image)[1:3], tf.float32)
        back = tf.clip_by_value(how.back(found["boxes"]), 0.0, tf.concat([limits, limits], 0))
        used = tf.range(own.most) < found["count"][:, tf.newaxis]
        return {**found, "boxes": tf.where(used[..., tf.newaxis], back, 0.0)}

    def separate(self, image: np.ndarray) -> list[tuple[np.ndarray, float, int]]:
        """The panels of one figure, uint8 [H, W, 3]: crop, score and class of each, best first."""
        (boxes, scores, labels) = self._detections(image)
        return [(c, float(s), int(n)) for c, s, n in zip(crops(image, boxes), scores, labels)]

    def _detections(self, image: np.ndarray) -> Detections:
        found = self.detect(tf.constant(image)[tf.newaxis])
        count = int(found["count"][0])
        boxes, scores, labels = (found[name][0, :count].numpy() for name in ("boxes", "scores", "labels"))
        return boxes, scores, labels

    def separate_with(self, others: list[SimCFS], image: np.ndarray) -> list[tuple[np.ndarray, float, int]]:
        """As `separate`, by an ensemble of this model and others (of other folds), with weighted boxes fusion."""
        own = self.config.detection
        fused = fuse([model._detections(image) for model in (self, *others)], own.fusion_overlap, own.fusion_skip)
        return [(c, float(s), int(n)) for c, s, n in zip(crops(image, fused[0]), fused[1], fused[2])]

    # -- serving ------------------------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """image uint8 [B, H, W, 3] → boxes float32 [B, 300, 4] (row, column minima then maxima), scores float32 [B, 300], labels int64
        [B, 300] (-1 in rows that are not used), count int32 [B]. `serving_default` has the configuration's confidence and overlap,
        `evaluate` those of evaluation."""
        spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")
        own = self.config.detection

        def checked(image: tf.Tensor) -> tf.Tensor:
            checks = [
                tf.debugging.assert_positive(tf.shape(image)[0], "image: the batch is empty"),
                tf.debugging.assert_positive(tf.reduce_min(tf.shape(image)[1:3]), "image: figures have no pixels"),
            ]
            with tf.control_dependencies(checks):
                return tf.identity(image)

        def detect(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.detect(checked(image))

        def evaluate(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.detect(checked(image), own.evaluation_confidence, own.evaluation_overlap)

        return {
            "serving_default": tf.function(detect, input_signature=[spec]),
            "evaluate": tf.function(evaluate, input_signature=[spec]),
        }

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """A white figure with a dark panel, for both signatures."""
        image = np.full([1, 48, 64, 3], 255, np.uint8)
        image[:, 8:40, 8:30] = 60
        return {name: {"image": image} for name in ("serving_default", "evaluate")}

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Figures with their boxes, and with those found, uint8 [B, S, S, 3]."""
        found = self.detect(batch["image"])
        return {
            "boxes": _framed(batch["image"], tf.where((batch["labels"] >= 0)[..., tf.newaxis], batch["boxes"], 0.0)),
            "found": _framed(batch["image"], found["boxes"]),
        }


def _framed(images: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """uint8 figures [B, S, S, 3] with frames [B, N, 4]."""
    side = tf.cast(tf.shape(images)[1], tf.float32)
    drawn = tf.image.draw_bounding_boxes(tf.cast(images, tf.float32), boxes / side, [[255.0, 0.0, 0.0]])
    return tf.cast(tf.round(drawn), tf.uint8)
