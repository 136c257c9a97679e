"""Segmentation of CT slices, trained with FBPAug or one of the augmentations it is compared with, as one Keras model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.binary_segmentation import pixel_cross_entropy, soft_dice_loss
from medsynth_tf.methods.augmentation.fbpaug import serving
from medsynth_tf.methods.augmentation.fbpaug.config import FBPAugConfig
from medsynth_tf.methods.augmentation.fbpaug.data import LESION, batches, folded, split_keys
from medsynth_tf.methods.augmentation.fbpaug.intensity import network_input
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.stage import Stage
from medsynth_tf.networks.residual_unet import ResidualUNet

Batch = dict[str, tf.Tensor]


class FBPAug(Method):
    """A segmentation network for CT slices of any size.

    Call it on {"image": float32 [B, H, W, 1] in HU}, or {"input": …} of what `dataset` made of it, for logits float32 [B, H, W, 1]. The
    augmentation is `layers.filtered_back_projection.FilteredBackProjection`, which any other model may use as well.

    Args:
        config: its settings.
    """

    config_class = FBPAugConfig
    config: FBPAugConfig

    def __init__(self, config: FBPAugConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        own = config.network
        self.network = ResidualUNet(
            own.filters, own.levels, own.norm, own.groups, layer_seed(config.seed, "network"), name="network"
        )
        names = ["cross_entropy", *(["soft_dice"] if config.soft_dice else []), "dice"]
        self.means = {name: tf.keras.metrics.Mean(name=name) for name in names}
        self.network(tf.keras.Input([None, None, 1]))
        self.built = True
        if config.training.ema_decay is not None:
            self.average = WeightAverage(self.network.variables, config.training.ema_decay)

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: FBPAugConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": float32 [B, H, W, 1] HU, "input": float32 [B, H, W, 1], "mask": uint8 [B, H, W], "size": int32 [B, 2],
        "seed": int64 [B]}; see `data.batches`."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def split(cls, source: Source, config: FBPAugConfig, name: str) -> list[RecordKey]:
        """The records that `dataset` goes through when it does not train, in its order."""
        return split_keys(source, config, name)

    @classmethod
    def record_requirements(cls, config: FBPAugConfig) -> RecordRequirements:
        """Slices in Hounsfield units with a mask (1 lesion), and with spacing where they are resampled."""
        names = ("mask", *(("spacing",) if config.pixel_spacing is not None else ()))
        types = ("int16", "int32", "uint16", "float32")
        return RecordRequirements(names=names, image_channels=(1,), image_dtypes=types, mask_codes=LESION)

    def stages(self, source: Source) -> list[Stage]:
        """One fit, on the fold's training patients where there are folds."""
        return [self.stage("train", folded(source, self.config))]

    # -- optimiser ----------------------------------------------------------------------------------------------------------
    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with the paper's Adam unless another is given."""
        rates = self.config.optimiser
        optimizer = self.with_loss_scale(optimizer or self.make_adam(rates.learning_rate, rates.beta_1, rates.beta_2))
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.network.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses and of the batch's Dice."""
        return list(self.means.values())

    # -- forward and steps --------------------------------------------------------------------------------------------------
    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Logits float32 [B, H, W, 1] of "input", or of "image" in HU where there is none."""
        seen = inputs["input"] if "input" in inputs else network_input(inputs["image"], self.config)
        return self.network(seen, training=training)

    def _objective(self, batch: Batch, training: bool) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """What is minimised, and what is shown."""
        logits, mask = self(batch, training=training)[..., 0], batch["mask"]
        shown = {"cross_entropy": pixel_cross_entropy(logits, mask), "dice": _dice(logits, mask)}
        objective = shown["cross_entropy"]
        if self.config.soft_dice:
            shown["soft_dice"] = soft_dice_loss(logits, mask)
            objective += self.config.soft_dice * shown["soft_dice"]
        return objective, shown

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of Adam on the batch; returns running means."""
        with tf.GradientTape() as tape:
            objective, shown = self._objective(batch, training=True)
            objective = self.replica_loss(objective, self.optimizer)
        variables = self.network.trainable_variables
        self.apply(self.optimizer, tape.gradient(objective, variables), variables)
        if self.average is not None:
            self.average.update()
        return recorded(self.means, shown)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The same without learning."""
        return recorded(self.means, self._objective(batch, training=False)[1])

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """See `serving.signatures`."""
        return serving.signatures(self)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature."""
        return serving.example_inputs()

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Slices in the window, two reconstructions of them (by the agreement's kernels), mask, what is found: uint8 [B, H, W, 1]."""
        image = batch["image"]
        layer = serving.make_layer(self.config, training=False)
        low, high = self.config.window

        def picture(hounsfield: tf.Tensor) -> tf.Tensor:
            return tf.saturate_cast(255.0 * (tf.clip_by_value(hounsfield, low, high) - low) / (high - low), tf.uint8)

        with self.averaged_weights():
            found = tf.sigmoid(self({"image": image}))
        pictures = {"image": picture(image)}
        for name, kernel in (("smoothed", self.config.agreement.smooth), ("sharpened", self.config.agreement.sharp)):
            a, b = (tf.fill(tf.shape(image)[:1], value) for value in kernel)
            pictures[name] = picture(layer.with_kernels(image, a, b))
        return pictures | {
            "mask": 255 * batch["mask"][..., tf.newaxis],
            "found": tf.saturate_cast(tf.round(255.0 * found), tf.uint8),
        }


def _dice(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Of the batch at the threshold, float32 scalar; 1 where both are empty."""
    found, truth = tf.cast(logits >= 0.0, tf.float32), tf.cast(mask, tf.float32)
    total = tf.reduce_sum(found) + tf.reduce_sum(truth)
    return tf.where(total > 0.0, 2.0 * tf.reduce_sum(found * truth) / tf.maximum(total, 1.0), 1.0)
