"""Records to batches: square, resized, flipped; images and label maps stay uint8 until they are inside the model."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data import transforms
from medsynth_tf.data.source import Source
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.ops.labels import assert_valid


def batches(
    source: Source,
    config: SemanticRetinaConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "seed": int64 [B]}.

    Raises:
        DataError: the split is empty, or records have no mask or no 8-bit image.
    """
    size, batch = config.image_size, config.training.batch_size
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    records = source.stream(keys, seed=seed, shuffle=training, epochs=epochs, skip=first_step * batch)
    missing = {"image", "mask"} - set(records.element_spec)
    if missing:
        raise DataError(
            f"semantic_retina needs records with image and mask; this source has no {' and no '.join(sorted(missing))}"
        )
    if records.element_spec["image"].dtype != tf.uint8 or records.element_spec["image"].shape.rank != 3:
        raise DataError(f"semantic_retina needs 8-bit photographs [H, W, C], got {records.element_spec['image']}")

    def prepare(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, mask = record["image"], record["mask"]
        mask = assert_valid(mask, config.label_channels, "mask")
        image = transforms.to_rgb(image)
        image, mask = transforms.pad_to_square(image, mask)
        image = transforms.resize_image(image, size)
        mask = transforms.resize_label_map(mask, size, len(config.labels), config.minimum_coverage)
        return {"image": image, "label_map": mask, "seed": record["index"]}

    def augment(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, mask = transforms.flip(
            example["image"],
            example["label_map"],
            seed=tf.stack([tf.cast(seed, tf.int64), example["seed"]]),
            horizontal=config.data.flip_horizontal,
            vertical=config.data.flip_vertical,
        )
        return {"image": image, "label_map": mask, "seed": example["seed"]}

    examples = records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if training:
        examples = examples.map(augment, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
