"""The training of stage 1 as stages of the run: one `fit` of the AC-GAN."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.source import Source
from medsynth_tf.methods.stage import Stage
from medsynth_tf.methods.translation.semantic_retina.data import label_batches
from medsynth_tf.methods.translation.semantic_retina.label_training import AdversarialLabelModel

Preview = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]


def label_stages(label_gan: AdversarialLabelModel, source: Source, preview: Preview) -> list[Stage]:
    """Stage 1's stages.

    Args:
        label_gan: compiled.
        source: the records.
        preview: pictures of a batch.

    Raises:
        DataError: the training split holds less than one batch.
    """
    config, settings = label_gan.config, label_gan.config.label_generator
    available = len(source.split("train", config.data.split_fractions, config.seed))
    if available < settings.batch_size:
        raise DataError(
            f"the training split holds {available} records, less than one batch (label_generator.batch_size = "
            f"{settings.batch_size})"
        )
    return [
        Stage(
            name="labels",
            model=label_gan,
            epochs=settings.epochs,
            steps_per_epoch=settings.steps_per_epoch or available // settings.batch_size,
            batches=lambda first_step: label_batches(source, config, "train", config.seed, first_step, None, training=True),
            callbacks=[label_gan.schedule()] if settings.decay_epochs else [],
            preview=preview,
        )
    ]
