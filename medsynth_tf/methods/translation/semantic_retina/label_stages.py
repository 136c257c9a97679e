"""Stage 1 by its source, and its training: one `fit` of the AC-GAN, or one for each resolution of a GAN that grows."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.source import Source
from medsynth_tf.methods.stage import Stage
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.data import label_batches
from medsynth_tf.methods.translation.semantic_retina.label_model import LabelGAN
from medsynth_tf.methods.translation.semantic_retina.label_training import AdversarialLabelModel
from medsynth_tf.methods.translation.semantic_retina.progressive_model import ProgressiveLabelGAN, ProgressiveModel
from medsynth_tf.methods.translation.semantic_retina.style_model import StyleLabelGAN

Preview = Callable[[dict[str, tf.Tensor], AdversarialLabelModel], dict[str, tf.Tensor]]


def make_label_gan(config: SemanticRetinaConfig) -> LabelGAN | ProgressiveModel:
    """The model that `label_generator.source` names."""
    if config.label_generator.source == "progan":
        return ProgressiveLabelGAN(config, name="label_gan")
    if config.label_generator.source == "stylegan":
        return StyleLabelGAN(config, name="label_gan")
    return LabelGAN(config, name="label_gan")


def label_stages(label_gan: LabelGAN | ProgressiveModel, source: Source, preview: Preview) -> list[Stage]:
    """'labels'; or 'labels_4', 'labels_8', …, which are told here how many steps they have to fade in over.

    Args:
        label_gan: compiled.
        source: the records.
        preview: pictures of a batch by the model that is trained.

    Raises:
        DataError: the training split holds less than one batch.
    """
    config, settings = label_gan.config, label_gan.config.label_generator
    decays = settings.decay_epochs > 0
    if isinstance(label_gan, LabelGAN):
        return [_stage("labels", label_gan, source, config.seed, "batch_size", decays, preview)]
    stages = []
    for number, level in enumerate(label_gan.levels):
        name, last = f"labels_{level.side}", level is label_gan.levels[-1]
        seed = derive_seed(config.seed, name)  # each stage sees the records in an order of its own
        batch_setting = f"progressive.batch_sizes[{number}]"
        stage = _stage(name, level, source, seed, batch_setting, decays and last, preview)
        level.plan(stage.steps)
        stages.append(stage)
    return stages


def _stage(
    name: str, model: AdversarialLabelModel, source: Source, seed: int, batch_setting: str, decays: bool, preview: Preview
) -> Stage:
    config, batch_size = model.config, model.batch_size
    available = len(source.split("train", config.data.split_fractions, config.seed))
    if available < batch_size:
        raise DataError(
            f"the training split holds {available} records, less than one batch (label_generator.{batch_setting} = {batch_size})"
        )
    return Stage(
        name=name,
        model=model,
        epochs=model.epochs,
        steps_per_epoch=config.label_generator.steps_per_epoch or available // batch_size,
        batches=lambda first_step: label_batches(
            source, config, "train", seed, first_step, None, training=True, batch_size=batch_size
        ),
        callbacks=[model.schedule()] if decays else [],
        preview=lambda batch: preview(batch, model),
    )
