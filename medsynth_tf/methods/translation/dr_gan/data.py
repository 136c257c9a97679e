"""Records to batches: square, resized, flipped; images and label maps stay uint8 until they are inside the model."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import prepared_stream
from medsynth_tf.data.source import Source
from medsynth_tf.methods.translation.dr_gan.config import DRGANConfig
from medsynth_tf.ops.labels import BACKGROUND


def batches(
    source: Source,
    config: DRGANConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "grade": int64 [B], "seed": int64 [B]}.

    Raises:
        DataError: the split is empty, or records have no mask, no grade, a grade that is too high, or no 8-bit image.
    """
    size, batch = config.image_size, config.training.batch_size
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    spec = source.spec(keys).signature()
    missing = [name for name in ("image", "mask", "label") if name not in spec]
    if missing:
        raise DataError(f"dr_gan needs records with image, mask and label; this source has no {' and no '.join(missing)}")
    for key in keys:
        if key.label is not None and not 0 <= key.label < config.grades:
            raise DataError(f"record '{key.id}' has grade {key.label}: dr_gan was told of grades 0 … {config.grades - 1}")
    image_spec = spec["image"]
    if image_spec.dtype != tf.uint8 or image_spec.shape.rank != 3 or image_spec.shape[-1] not in (1, 3):
        raise DataError(f"dr_gan needs 8-bit photographs [H, W, 1 or 3], got {image_spec.dtype.name} {image_spec.shape}")
    codes = (*range(len(config.labels)), BACKGROUND)
    flip_seed = derive_seed(seed, "flips")

    def prepare(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, mask = record["image"], record["mask"]
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        image, mask = transforms.crop_to_square(image, mask)
        image = transforms.resize_image(image, (size, size))
        mask = transforms.resize_label_map(mask, (size, size), codes, config.minimum_coverage)
        grade = tf.cast(record["label"], tf.int64)
        in_range = tf.debugging.Assert((grade >= 0) & (grade < config.grades), ["label is no grade:", grade])
        with tf.control_dependencies([in_range]):
            grade = tf.identity(grade)
        return {
            "image": tf.ensure_shape(image, [size, size, 3]),
            "mask": tf.ensure_shape(mask, [size, size]),
            "grade": grade,
        }

    def finish(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        index = example["index"]
        if training:
            flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
            example = transforms.flip(example, tf.bitwise.bitwise_xor(index, flip_seed), **flips)
        return {"image": example["image"], "label_map": example["mask"], "grade": example["grade"], "seed": index}

    examples = prepared_stream(
        source,
        keys,
        prepare,
        seed=seed,
        shuffle=training,
        epochs=epochs,
        skip=first_step * batch,
        anew=training and epochs is not None,
        cache=config.data.cache and training,
    )
    examples = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
