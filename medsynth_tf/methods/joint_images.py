"""What methods that make photographs and masks together share, whatever their networks."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.joint_config import MASK_NAMES, JointImageConfig
from medsynth_tf.data.joint_images import complete_keys
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.stage import Stage
from medsynth_tf.ops import joint_channels


class JointImageMethod(Method):
    """Base of these methods: batches to tensors, tensors to pixels, requirements, a training stage on complete records."""

    config: JointImageConfig

    @staticmethod
    def pair_requirements(config: JointImageConfig, classes: int | None = None) -> RecordRequirements:
        """8-bit photographs, with label maps where there are mask channels."""
        names = tuple(name for name, asked in (("mask", config.mask_names), ("label", classes)) if asked)
        return RecordRequirements(names=names, mask_codes=len(MASK_NAMES) if config.mask_names else None, labels=classes)

    def stages(self, source: Source) -> list[Stage]:
        """One fit over the records of the training split that have all masks.

        Raises:
            DataError: there is less than a batch of them.
        """
        training = self.config.training
        complete = len(complete_keys(source, self.config, "train"))
        if complete < training.batch_size:
            raise DataError(
                f"the training split holds {complete} records with all masks, less than one batch "
                f"(training.batch_size = {training.batch_size})"
            )
        held_out = source.split("val", self.config.data.split_fractions, self.config.seed)
        stage = Stage(
            name="train",
            model=self,
            epochs=training.epochs,
            steps_per_epoch=training.steps_per_epoch or complete // training.batch_size,
            batches=lambda first_step: self.dataset(source, self.config, "train", self.config.seed, first_step, epochs=None),
            validation=(lambda: self.dataset(source, self.config, "val", self.config.seed)) if held_out else None,
        )
        return [stage]

    def joined(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """A batch as the networks see it: float32 [B, S, S, C] in [-1, 1]."""
        masks = self.config.masks
        return joint_channels.join(batch["image"], batch.get("label_map"), len(self.config.mask_names), masks.levels)

    def pixels(self, joint: tf.Tensor) -> dict[str, tf.Tensor]:
        """Generated [B, S, S, C] → "image" uint8 [B, S, S, 3] and, with masks, "mask" uint8 [B, S, S], "empty_mask" bool [B]."""
        image, inside = joint_channels.split(joint, self.config.masks.threshold)
        if not self.config.mask_names:
            return {"image": image}
        return {"image": image, "mask": joint_channels.label_map(inside), "empty_mask": joint_channels.is_empty(inside)}

    def picture_columns(self, joint: tf.Tensor, rows: int) -> dict[str, tf.Tensor]:
        """Generated samples as columns of `rows`: photographs, then their masks in grey; uint8 [rows, S, S, 1 or 3] by name."""
        made = self.pixels(joint)
        columns: dict[str, tf.Tensor] = {}
        for name, pictures in (("synthetic", made["image"]), ("mask", made.get("mask"))):
            if pictures is not None:
                grey = pictures if name == "synthetic" else _grey(pictures, len(self.config.mask_names))[..., tf.newaxis]
                for start in range(0, len(grey) // rows * rows, rows):
                    columns[f"{name} {start}"] = grey[start : start + rows]
        return columns


def _grey(mask: tf.Tensor, masks: int) -> tf.Tensor:
    """A label map with its first class white and later ones darker."""
    shades: Sequence[int] = [0, *(255 - 255 * index // (masks + 1) for index in range(masks))]
    return tf.gather(tf.constant(shades, tf.uint8), tf.cast(mask, tf.int32))
