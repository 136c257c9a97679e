"""Records to batches: square, resized, flipped; images and label maps stay uint8 until they are inside the model."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import prepared_stream
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
    spec = source.spec(keys).signature()
    missing = [name for name in ("image", "mask") if name not in spec]
    if missing:
        raise DataError(f"semantic_retina needs records with image and mask; this source has no {' and no '.join(missing)}")
    if spec["image"].dtype != tf.uint8 or spec["image"].shape.rank != 3:
        raise DataError(
            f"semantic_retina needs 8-bit photographs [H, W, C], got {spec['image'].dtype.name} {spec['image'].shape}"
        )

    def prepare(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        mask = assert_valid(record["mask"], config.label_channels, "mask")
        image, mask = transforms.pad_to_square(transforms.to_rgb(record["image"]), mask)
        image = transforms.resize_image(image, size)
        mask = transforms.resize_label_map(mask, size, len(config.labels), config.minimum_coverage)
        return {"image": image, "label_map": mask}

    def finish(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, mask, index = example["image"], example["label_map"], example["index"]
        if training:
            flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
            image, mask = transforms.flip(image, mask, seed=tf.stack([tf.cast(seed, tf.int64), index]), **flips)
        return {"image": image, "label_map": mask, "seed": index}

    examples = prepared_stream(
        source,
        keys,
        prepare,
        seed=seed,
        shuffle=training,
        epochs=epochs,
        skip=first_step * batch,
        cache=config.data.cache and training,
    )
    examples = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
