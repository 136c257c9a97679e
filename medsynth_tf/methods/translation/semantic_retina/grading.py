"""Grades for records that have none: by chance, or by a classifier of photographs or of label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.ops import labels as label_ops
from medsynth_tf.ops import random

Grading = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]


def make_grading(config: SemanticRetinaConfig) -> Grading:
    """How the configuration wants grades: a graph function from a batch to int32 [B].

    The batch has `image` uint8 [B, H, W, 3], `label_map` uint8 [B, S, S], `seed` int64 [B] and, for 'given', `label` int [B].

    Raises:
        ConfigError: the classifier's weights are missing or of another network.
    """
    settings = config.label_generator
    if settings.grading == "given":
        return lambda batch: tf.cast(batch["label"], tf.int32)
    if settings.grading == "random":
        return lambda batch: tf.cast(random.uniform(batch["seed"], (1,), "random grade")[:, 0] * settings.grades, tf.int32)
    of_images = settings.grading == "image_model"
    backbone = settings.grading_backbone or ("resnet101" if of_images else "resnet50")
    classifier = ImageClassifier(backbone, settings.grades, channels=3 if of_images else config.label_channels)
    _load(classifier, str(settings.grading_weights))

    def grade(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if of_images:
            inputs = tf.cast(batch["image"], tf.float32) / 127.5 - 1.0
        else:
            inputs = label_ops.one_hot(batch["label_map"], config.label_channels)
        return tf.argmax(classifier(inputs)["logits"], -1, output_type=tf.int32)

    return grade


def _load(classifier: ImageClassifier, weights: str) -> None:
    if not Path(f"{weights}.index").is_file() and not Path(weights).is_file():
        raise ConfigError(f"label_generator.grading_weights: there is no file {weights}")
    try:
        status = classifier.load_weights(weights)
        if status is not None:  # a TensorFlow checkpoint; HDF5 is checked while it is read
            status.assert_existing_objects_matched()
    except (AssertionError, ValueError, OSError, tf.errors.OpError) as error:
        raise ConfigError(
            f"label_generator.grading_weights {weights}: not those of the classifier: {str(error).splitlines()[0]}"
        ) from error
