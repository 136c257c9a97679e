"""Records to batches: cropped, resized, with vessel maps, class-balanced, flipped and turned; all uint8 until inside the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.fundus import field_of_view
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.records import OUTSIDE
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig
from medsynth_tf.methods.augmentation.tvps.vessels import make_extractor, to_bytes


def batches(
    source: Source,
    config: TVPSConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, C], "label": int64 [B], "seed": int64 [B]} and, where patches are made of vessel maps,
    "vessels": uint8 [B, S, S].

    Args:
        batch_size: B; default: the configuration's.

    The others are those of `Method.dataset`.

    Raises:
        DataError: the split is empty, records have no label, one beyond the classes, no 8-bit image, or no mask where it is needed.
    """
    batch = batch_size or config.training.batch_size
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    _check_labels(keys, config.classes)
    if training and config.balanced:
        keys = balanced(keys)
    prepare = _preparation(source, keys, config)
    flip_seed, turn_seed = derive_seed(seed, "flips"), derive_seed(seed, "turns")

    def finish(example: Example) -> Example:
        index = example["index"]
        if training:
            flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
            example = transforms.flip(example, tf.bitwise.bitwise_xor(index, flip_seed), **flips)
            if config.rotate:
                example = _turned(example, tf.stack([index, tf.constant(turn_seed, tf.int64)]))
        finished = {"image": example["image"], "label": example["label"], "seed": index}
        if "mask" in example:
            finished["vessels"] = example["mask"]
        return finished

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


def translation_batches(source: Source, config: TVPSConfig, seed: int, first_step: int) -> tf.data.Dataset:
    """Endless training batches of stage A: `batches`' where pairs count (`translator.paired`), else the same with vessel maps of other
    records than the images."""
    if config.translator.paired > 0:
        return batches(source, config, "train", seed, first_step, None, True, config.translator.batch_size)
    images, others = (
        batches(source, config, "train", s, first_step, None, True, config.translator.batch_size)
        for s in (seed, derive_seed(seed, "unpaired") % 2**31)
    )
    return tf.data.Dataset.zip((images, others)).map(lambda image, other: {**image, "vessels": other["vessels"]})


def balanced(keys: Sequence[RecordKey]) -> list[RecordKey]:
    """The keys, those of rarer classes repeated in turn until each class has as many as the most frequent one."""
    classes: dict[int | None, list[RecordKey]] = defaultdict(list)
    for key in keys:
        classes[key.label].append(key)
    most = max(map(len, classes.values()))
    return [members[i % len(members)] for members in classes.values() for i in range(most)]


def _check_labels(keys: Sequence[RecordKey], classes: int) -> None:
    for key in keys:
        if key.label is None:
            raise DataError(f"record '{key.id}' has no label; tvps trains a classifier and needs one of every record")
        if not 0 <= key.label < classes:
            raise DataError(f"record '{key.id}': label {key.label} is beyond classes = {classes}")


def _preparation(source: Source, keys: Sequence[RecordKey], config: TVPSConfig):
    """The graph function from a record to {"image", "label"} and, with vessel maps, {"mask": uint8 [S, S]}."""
    size, channels = config.image_size, config.channels
    spec = source.spec(keys).signature()
    image_spec = spec["image"]
    if image_spec.dtype != tf.uint8 or image_spec.shape.rank != 3 or image_spec.shape[-1] not in (1, 3):
        raise DataError(f"tvps needs 8-bit images [H, W, 1 or 3], got {image_spec.dtype.name} {image_spec.shape}")
    from_mask = config.translates and config.vessels.source == "mask"
    if from_mask and "mask" not in spec:
        raise DataError("vessels.source 'mask' needs records with a mask; this source has none")
    extractor = make_extractor(config)

    def prepare(record: Example) -> Example:
        image = record["image"]
        if image.shape[-1] != channels:
            image = tf.image.grayscale_to_rgb(image) if channels == 3 else tf.image.rgb_to_grayscale(image)
        vessels = tf.cast(record["mask"] == config.vessels.code, tf.uint8) * 255 if from_mask else None
        if config.crop == "retina":
            fits = tf.reduce_all(tf.shape(image)[:2] == size)  # images of the model's size are taken as they are
            inside = tf.cond(
                fits,
                lambda: tf.zeros(tf.shape(image)[:2], tf.uint8),
                lambda: tf.ensure_shape(tf.numpy_function(_lit, [image], tf.uint8), [None, None]),
            )
            if vessels is not None:
                vessels = transforms.crop_to_square(vessels[..., tf.newaxis], inside)[0][..., 0]
            image, _ = transforms.crop_to_square(image, inside)
        image = tf.ensure_shape(transforms.resize_image(image, (size, size)), [size, size, channels])
        example = {"image": image, "label": record["label"]}
        if vessels is not None:
            resized = transforms.resize_image(vessels[..., tf.newaxis], (size, size))
            example["mask"] = tf.ensure_shape(resized[..., 0], [size, size])
        elif extractor is not None:
            example["mask"] = tf.ensure_shape(to_bytes(extractor(image[tf.newaxis])[0, ..., 0]), [size, size])
        return example

    return prepare


def _lit(image: np.ndarray) -> np.ndarray:
    """0 in the lit field of view, 255 outside, uint8 [H, W]."""
    rgb = image if image.shape[-1] == 3 else np.repeat(image, 3, -1)
    return np.where(field_of_view(rgb), np.uint8(0), np.uint8(OUTSIDE))


def _turned(example: Example, seed: tf.Tensor) -> Example:
    """Image and vessel map turned by the same random multiple of 90 degrees."""
    turns = tf.random.stateless_uniform([], seed, 0, 4, tf.int32)
    turned = dict(example)
    size = example["image"].shape
    turned["image"] = tf.ensure_shape(tf.image.rot90(example["image"], turns), size)
    if "mask" in example:
        mask = tf.image.rot90(example["mask"][..., tf.newaxis], turns)[..., 0]
        turned["mask"] = tf.ensure_shape(mask, example["mask"].shape)
    return turned
