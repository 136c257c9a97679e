"""Stage 3: what synthetic pairs add to real ones, by a U-Net that is trained on both and tested on real photographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.concatenated_source import ConcatenatedSource
from medsynth_tf.data.fundus_contrast import normalise_contrast
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.data import split_keys, square_examples
from medsynth_tf.metrics.overlap import precision_recall_f1
from medsynth_tf.networks.unet import UNet2D
from medsynth_tf.ops.labels import BACKGROUND

SHARES = (0.0, 0.25, 0.5, 0.75)


class LesionSegmenter(Optimisation, tf.keras.Model):
    """A U-Net with pixel cross-entropy: one lesion against the rest, or all classes.

    Call it on images float32 [B, S, S, 3] in [-1, 1] for logits [B, S, S, classes].

    Args:
        config: of the method; its `segmenter`.
        seed: of the weights.
    """

    config: SemanticRetinaConfig

    def __init__(self, config: SemanticRetinaConfig, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.distribute_reduction_method = "first"
        classes = config.label_channels if config.segmenter.lesion is None else 2
        self.network = UNet2D(classes, config.segmenter.widths, layer_seed(seed, "segmenter"), name="unet")
        self.network(tf.keras.Input([config.image_size, config.image_size, 3]))
        self.loss_mean = tf.keras.metrics.Mean(name="cross_entropy")
        self.built = True

    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with RMSprop of PyTorch's defaults: ρ 0.99, ε 1e-8, which stands squared under the root here."""
        settings = self.config.segmenter
        optimizer = tf.keras.optimizers.RMSprop(
            settings.learning_rate, rho=0.99, momentum=settings.momentum, epsilon=1e-16, clipvalue=settings.clip_value
        )
        super().compile(optimizer=self.with_loss_scale(optimizer), **kwargs)
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The running mean of the loss."""
        return [self.loss_mean]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images float32 [B, S, S, 3] in [-1, 1] → logits float32."""
        return self.network(images, training=training)

    def targets(self, label_map: tf.Tensor) -> tf.Tensor:
        """Label map uint8 [B, S, S] → class of each pixel, int32."""
        codes = tf.cast(label_map, tf.int32)
        if self.config.segmenter.lesion is not None:
            return tf.cast(codes == self.config.labels.index(self.config.segmenter.lesion), tf.int32)
        return tf.where(codes == BACKGROUND, self.config.label_channels - 1, codes)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S]}."""
        variables, decay = self.trainable_variables, self.config.segmenter.weight_decay
        with tf.GradientTape() as tape:
            logits = self(scaled(batch["image"]), training=True)
            value = cross_entropy(logits, self.targets(batch["label_map"]))
            penalty = tf.add_n([tf.nn.l2_loss(variable) for variable in variables])  # its gradient is the variable
            loss = self.replica_loss(value + decay * penalty, self.optimizer)
        self.apply(self.optimizer, tape.gradient(loss, variables), variables)
        self.loss_mean.update_state(value)
        return {"cross_entropy": self.loss_mean.result()}


def scaled(images: tf.Tensor) -> tf.Tensor:
    """uint8 → float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def pairs(
    source: Source, keys: Sequence[RecordKey], config: SemanticRetinaConfig, seed: int, training: bool
) -> tf.data.Dataset:
    """Batches {"image", "label_map", "seed"} for the segmenter; in training for ever, shuffled, flipped along both axes at random."""
    flips = {"horizontal": True, "vertical": True}
    epochs = None if training else 1
    examples = square_examples(source, keys, config, seed, config.image_size, 0, epochs, training, flips)

    def normalised(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.numpy_function(normalise_contrast, [example["image"]], tf.uint8)
        return {**example, "image": tf.ensure_shape(image, example["image"].shape)}

    if config.segmenter.contrast_normalised:
        examples = examples.map(normalised, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batch = config.segmenter.batch_size
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)


def scores(segmenter: LesionSegmenter, batches: tf.data.Dataset) -> np.ndarray:
    """Precision, recall and F1 of each image, float64 [N, 3]: of the lesion, or of all lesions together (codes above 0)."""
    found: list[np.ndarray] = []
    wanted: list[np.ndarray] = []
    predict = tf.function(lambda images: tf.argmax(segmenter(scaled(images)), -1, output_type=tf.int32))
    outside = segmenter.config.label_channels - 1
    for batch in batches:
        for collected, classes in ((found, predict(batch["image"])), (wanted, segmenter.targets(batch["label_map"]))):
            codes = classes.numpy()
            collected.append((codes > 0) & (codes < outside) if segmenter.config.segmenter.lesion is None else codes == 1)
    return precision_recall_f1(np.concatenate(found), np.concatenate(wanted))


def train_segmenter(source: Source, config: SemanticRetinaConfig, seed: int = 0) -> LesionSegmenter:
    """A segmenter trained on all records of a source for `segmenter.epochs` passes.

    Args:
        source: of pairs.
        config: of the method.
        seed: of weights, order and flips.

    Raises:
        DataError: there is less than one batch.
    """
    keys = source.keys()
    steps = config.segmenter.epochs * (len(keys) // config.segmenter.batch_size)
    if not steps:
        raise DataError(
            f"{len(keys)} training pairs are less than one batch (segmenter.batch_size = {config.segmenter.batch_size})"
        )
    segmenter = LesionSegmenter(config, seed=seed)
    segmenter.compile()
    batches = pairs(source, keys, config, derive_seed(seed, "segmentation"), training=True)
    segmenter.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0)
    return segmenter


@dataclasses.dataclass(frozen=True)
class ShareRow:
    """One training: `share` of the training pairs were synthetic, `synthetic` of them; means over the real test images."""

    share: float
    real: int
    synthetic: int
    seed: int
    precision: float
    recall: float
    f1: float


def synthetic_count(real: int, share: float) -> int:
    """How many synthetic pairs make `share` of all when there are `real` real ones: 246, 738, 2214 for 738 at ¼, ½, ¾."""
    return round(real * share / (1.0 - share))


def synthetic_share_table(
    real: Source,
    synthetic: Source,
    config: SemanticRetinaConfig,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0,),
) -> list[ShareRow]:
    """Trains a U-Net for each share and seed, on the real training split and that share of synthetic pairs, and tests it.

    Args:
        real: photographs with label maps; its training split is trained on, its test split tested.
        synthetic: pairs from any generator, for example the folder that `medsynth synthesize` writes.
        config: of the method: `segmenter`, `labels`, `image_size`, `data.split_fractions`.
        shares: of synthetic pairs among all, in [0, 1).
        seeds: of weights and order; one training each.

    Raises:
        DataError: there are fewer synthetic pairs than the largest share needs, or a share is not in [0, 1).
    """
    train, test = split_keys(real, config, "train"), split_keys(real, config, "test")
    available = synthetic.keys()
    if not all(0.0 <= share < 1.0 for share in shares):
        raise DataError(f"shares {tuple(shares)}: must be in [0, 1)")
    most = max(synthetic_count(len(train), share) for share in shares)
    if len(available) < most:
        raise DataError(
            f"a share of {max(shares)} needs {most} synthetic pairs beside {len(train)} real ones; there are {len(available)}"
        )
    rows = []
    for share in shares:
        count = synthetic_count(len(train), share)
        together = ConcatenatedSource([(real, train), (synthetic, available[:count])] if count else [(real, train)])
        for seed in seeds:
            segmenter = train_segmenter(together, config, seed)
            precision, recall, f1 = scores(segmenter, pairs(real, test, config, 0, training=False)).mean(0)
            rows.append(ShareRow(share, len(train), count, seed, float(precision), float(recall), float(f1)))
    return rows


def share_table_text(rows: Sequence[ShareRow]) -> str:
    """The rows as the paper's table, mean ± standard deviation over the seeds."""
    lines = ["| % synthetic | count | precision | recall | F1 |", "|---|---|---|---|---|"]
    for share in sorted({row.share for row in rows}):
        of_share = [row for row in rows if row.share == share]
        cells = [
            f"{np.mean(values):.4f} ± {np.std(values):.4f}"
            for values in ([getattr(row, name) for row in of_share] for name in ("precision", "recall", "f1"))
        ]
        lines.append(f"| {100 * share:g} | {of_share[0].synthetic} | {' | '.join(cells)} |")
    return "\n".join(lines)
