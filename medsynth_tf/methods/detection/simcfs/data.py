"""Panels or figures to batches of letterboxed figures with padded boxes."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.compound_figures import CompoundFigureSource
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.detection.simcfs.config import SimCFSConfig
from medsynth_tf.methods.detection.simcfs.detection import letterbox


def figures_of(source: Source, config: SimCFSConfig, split: str) -> tuple[Source, list[RecordKey]]:
    """Where a split's figures come from: the records themselves where they have boxes, else figures simulated of them as panels.

    Raises:
        DataError: the split is empty, has neither boxes nor classes, or has no boxes where training asks for real figures.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    framed = "boxes" in source.optional_names(keys)
    if split == "train" and config.training_data == "real" and not framed:
        raise DataError("training_data 'real' needs records with boxes; this source has none")
    if framed and not (split == "train" and config.training_data == "simulated"):
        return source, keys
    if framed:
        raise DataError(
            "training_data 'simulated' makes figures of single panels; this source's records have boxes: use 'real'"
        )
    own = config.simulator
    if split != "train":  # as many of each kind as their share
        counts = [round(config.validation_figures * count / own.figures) for count in (own.mixed, own.intra, own.single)]
        own = dataclasses.replace(own, mixed=max(counts[0], not any(counts)), intra=counts[1], single=counts[2])
    made = CompoundFigureSource(source, keys, own, derive_seed(config.seed, split))
    return made, made.keys()


def batches(
    source: Source,
    config: SimCFSConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, 3], "boxes": float32 [B, M, 4] in pixels of the square, "labels": int64 [B, M], -1 for
    none, "scale": float32 [B] and "offset": float32 [B, 2] of the letterbox, "seed": int64 [B]}.

    Arguments and errors: those of `Method.dataset` and of `figures_of`; DataError also where images are not 8-bit RGB.
    """
    figures, keys = figures_of(source, config, split)
    spec = figures.spec(keys).signature()
    image = spec["image"]
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] not in (1, 3):
        raise DataError(f"simcfs needs 8-bit figures [H, W, 1 or 3], got {image.dtype.name} {image.shape}")
    size, most, batch = config.image_size, config.most_boxes, config.training.batch_size

    def prepare(record: Example) -> Example:
        picture = record["image"]
        if picture.shape[-1] == 1:
            picture = tf.image.grayscale_to_rgb(picture)
        fitted, how = letterbox(picture[tf.newaxis], size)
        boxes, labels = how.forth(record["boxes"]), record["box_labels"]
        if config.classes == 1:
            labels = tf.zeros_like(labels)
        count = tf.shape(labels)[0]
        checks = [
            tf.debugging.assert_less_equal(count, most, f"more boxes in a figure than most_boxes = {most}"),
            tf.debugging.assert_less(
                labels, tf.constant(config.classes, tf.int64), f"a box's label is beyond classes = {config.classes}"
            ),
        ]
        with tf.control_dependencies(checks):
            boxes = tf.pad(boxes, [[0, most - count], [0, 0]])
            labels = tf.pad(labels, [[0, most - count]], constant_values=-1)
        return {
            "image": tf.cast(tf.round(fitted[0] * 255.0), tf.uint8),
            "boxes": tf.ensure_shape(boxes, [most, 4]),
            "labels": tf.ensure_shape(labels, [most]),
            "scale": how.scale,
            "offset": how.offset,
        }

    examples = prepared_stream(
        figures,
        keys,
        prepare,
        seed=seed,
        shuffle=training,
        epochs=epochs,
        skip=first_step * batch,
        anew=training and epochs is not None,
        cache=config.data.cache and training,
    )
    examples = examples.map(lambda e: {**{name: e[name] for name in e if name != "index"}, "seed": e["index"]})
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
