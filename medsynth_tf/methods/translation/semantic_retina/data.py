"""Records to batches: square, resized, flipped; images and label maps stay uint8 until they are inside the model."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.grading import make_grading
from medsynth_tf.ops.labels import BACKGROUND


def batches(
    source: Source,
    config: SemanticRetinaConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "seed": int64 [B]}, and "label" where records have one.

    Raises:
        DataError: the split is empty, or records have no mask or no 8-bit image.
    """
    flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
    keys = split_keys(source, config, split)
    skip = first_step * config.training.batch_size
    examples = square_examples(source, keys, config, seed, config.image_size, skip, epochs, training, flips)
    return examples.batch(config.training.batch_size, drop_remainder=training).prefetch(tf.data.AUTOTUNE)


def label_batches(
    source: Source,
    config: SemanticRetinaConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    """Batches of stage 1: {"label_map": uint8 [B, s, s], "grade": int32 [B], "seed": int64 [B]}, s = `label_generator.size`.

    In training, maps are flipped along both axes at random. B is `batch_size`, by default `label_generator.batch_size`.

    Raises:
        DataError: as `batches`, and if grades are to come from the records' label and a record has none.
    """
    settings = config.label_generator
    grading = make_grading(config)
    keys = split_keys(source, config, split)
    flips = {"horizontal": True, "vertical": True}
    batch_size = batch_size or settings.batch_size
    skip = first_step * batch_size
    examples = square_examples(source, keys, config, seed, settings.size, skip, epochs, training, flips)
    if settings.grading == "given" and "label" not in examples.element_spec:
        raise DataError(
            "stage 1 of semantic_retina needs grades: this source's records have no label; label_generator.grading names other ways"
        )

    def graded(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        grade = grading(batch)
        message = f"grades must be 0 … {settings.grades - 1}"
        with tf.control_dependencies(
            [tf.debugging.assert_non_negative(grade, message), tf.debugging.assert_less(grade, settings.grades, message)]
        ):
            return {"label_map": batch["label_map"], "grade": tf.identity(grade), "seed": batch["seed"]}

    graded_batches = examples.batch(batch_size, drop_remainder=training).map(graded, deterministic=True)
    return graded_batches.prefetch(tf.data.AUTOTUNE)


def split_keys(source: Source, config: SemanticRetinaConfig, split: str) -> list[RecordKey]:
    """The records of a split.

    Raises:
        DataError: it has none.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    return keys


def square_examples(
    source: Source,
    keys: Sequence[RecordKey],
    config: SemanticRetinaConfig,
    seed: int,
    size: int,
    skip: int,
    epochs: int | None,
    training: bool,
    flips: dict[str, bool],
) -> tf.data.Dataset:
    """Single examples {"image": uint8 [size, size, 3], "label_map": uint8 [size, size], "seed"} and "label" where there is one."""
    spec = source.spec(keys).signature()
    missing = [name for name in ("image", "mask") if name not in spec]
    if missing:
        raise DataError(f"semantic_retina needs records with image and mask; this source has no {' and no '.join(missing)}")
    image_spec = spec["image"]
    if image_spec.dtype != tf.uint8 or image_spec.shape.rank != 3 or image_spec.shape[-1] not in (1, 3):
        raise DataError(
            f"semantic_retina needs 8-bit photographs [H, W, 1 or 3], got {image_spec.dtype.name} {image_spec.shape}"
        )
    codes = (*range(len(config.labels)), BACKGROUND)
    flip_seed = derive_seed(seed, "flips")

    def prepare(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, mask = record["image"], record["mask"]
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        if image.shape[:2] != (size, size):  # those of the model's size, patches among them, are taken as they are
            image, mask = transforms.crop_to_square(image, mask)
            image = transforms.resize_image(image, (size, size))
        mask = transforms.resize_label_map(mask, (size, size), codes, config.minimum_coverage)
        example = {"image": tf.ensure_shape(image, [size, size, 3]), "mask": tf.ensure_shape(mask, [size, size])}
        return example | ({"label": record["label"]} if "label" in record else {})

    def finish(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        index = example.pop("index")
        if training:
            example = transforms.flip(example, tf.bitwise.bitwise_xor(index, flip_seed), **flips)
        label_map = example.pop("mask")
        return {**example, "label_map": label_map, "seed": index}

    examples = prepared_stream(
        source,
        keys,
        prepare,
        seed=seed,
        shuffle=training,
        epochs=epochs,
        skip=skip,
        anew=training and epochs is not None,
        cache=config.data.cache and training,
    )
    return examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
