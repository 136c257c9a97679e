"""Records to batches: in [0, 1] and of one size, of the classes that the GAN learns, perhaps turned, moved and flipped."""

from __future__ import annotations

import math

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.generation.gan_eval.config import GANEvalConfig
from medsynth_tf.ops import random
from medsynth_tf.ops.affine import affine

_OUTSIDE = 255


def keys_of(source: Source, config: GANEvalConfig, split: str, labels: list[int] | None = None) -> list[RecordKey]:
    """The split's records of these classes; by default those that the GAN learns.

    Raises:
        DataError: there are none, a record has no label where there are classes, or one beyond them.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if config.classes == 1:
        if not keys:
            raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
        return keys
    for key in keys:
        if key.label is None or not 0 <= key.label < config.classes:
            found = "no label" if key.label is None else f"label {key.label}"
            raise DataError(f"record '{key.id}' has {found}: gan_eval needs 0 … {config.classes - 1} (or set classes to 1)")
    wanted = config.labels if labels is None else labels
    kept = [key for key in keys if key.label in wanted]
    if not kept:
        raise DataError(f"split '{split}' has no record of class {', '.join(map(str, wanted))}")
    return kept


def batches(
    source: Source,
    config: GANEvalConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
    labels: list[int] | None = None,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, C], "label", "seed": int64 [B]}.

    Args:
        labels: records of these classes; by default those that the GAN learns.

    The others are those of `Method.dataset`.

    Raises:
        DataError: there is no such record, or records have no 2-D images or, with `intensity.roi`, no masks.
    """
    keys = keys_of(source, config, split, labels)
    batch = config.training.batch_size
    examples = prepared_stream(
        source,
        keys,
        _preparation(source, keys, config),
        seed=seed,
        shuffle=training,
        epochs=epochs,
        skip=first_step * batch,
        anew=training and epochs is not None,
        cache=config.data.cache,
    )
    augment_seed = derive_seed(seed, "augmentation")

    def finish(example: Example) -> Example:
        image = example["image"]
        if training:
            image = augmented(image, tf.bitwise.bitwise_xor(example["index"], augment_seed), config)
        return {"image": image, "label": example["label"], "seed": example["index"]}

    grouped = examples.batch(batch, drop_remainder=training)
    return grouped.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def augmented(images: tf.Tensor, seeds: tf.Tensor, config: GANEvalConfig) -> tf.Tensor:
    """Images uint8 [B, S, S, C], each turned, moved and flipped by its own seed; 0 comes in from outside.

    Args:
        images: what to augment.
        seeds: int64 [B].
        config: how far.
    """
    settings, flips = config.augmentation, config.data
    draws = random.uniform(seeds, (5,), "augmentation")
    if flips.flip_horizontal:
        images = tf.where((draws[:, 0] < 0.5)[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, [2]), images)
    if flips.flip_vertical:
        images = tf.where((draws[:, 1] < 0.5)[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, [1]), images)
    if not (settings.rotation or settings.shift):
        return images
    angle = (2.0 * draws[:, 2] - 1.0) * settings.rotation * (math.pi / 180.0)
    shift = (2.0 * draws[:, 3:] - 1.0) * settings.shift / config.image_size
    moved = affine(tf.cast(images, tf.float32), angle, shift, tf.ones_like(angle))
    return tf.saturate_cast(tf.round(moved), tf.uint8)


def _preparation(source: Source, keys: list[RecordKey], config: GANEvalConfig):
    """The graph function from a record to {"image": uint8 [S, S, C], "label": int64}."""
    spec = source.spec(keys).signature()
    if spec["image"].shape.rank != 3 or spec["image"].shape[-1] not in (1, 3):
        raise DataError(f"gan_eval needs images [H, W, 1 or 3], got {spec['image'].shape}")
    if config.intensity.roi and "mask" not in spec:
        raise DataError("intensity.roi: records have no masks")
    low, high = config.intensity.window
    size = config.image_size

    def prepare(record: Example) -> Example:
        image = record["image"]
        if image.dtype != tf.uint8:
            share = (tf.cast(image, tf.float32) - low) / (high - low)
            image = tf.saturate_cast(tf.round(255.0 * tf.clip_by_value(share, 0.0, 1.0)), tf.uint8)
        if config.intensity.roi:
            inside = (record["mask"] > 0) & (record["mask"] != _OUTSIDE)
            image = tf.where(inside[..., tf.newaxis], image, tf.zeros_like(image))
        if image.shape[-1] != config.channels:
            image = tf.image.grayscale_to_rgb(image) if config.channels == 3 else tf.image.rgb_to_grayscale(image)
        if config.intensity.fit == "pad":
            image = tf.image.resize_with_crop_or_pad(image, size, size)
        else:
            image = transforms.resize_image(image, (size, size))
        label = record["label"] if config.classes > 1 else tf.constant(0, tf.int64)
        return {"image": tf.ensure_shape(image, config.image_shape), "label": label}

    return prepare
