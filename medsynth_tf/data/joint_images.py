"""Records to pairs of photograph and masks: complete ones only, one geometric transform for both, masks by nearest neighbour."""

from __future__ import annotations

import math
import os
import weakref
from concurrent import futures

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.joint_config import JointImageConfig
from medsynth_tf.data.pipelines import prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.ops import random

MARGIN = 1.25  # photographs are prepared this much larger before random crops (80 for 64 in Makinde and Saeed's base)

_codes_of: weakref.WeakKeyDictionary[Source, dict[str, frozenset[int]]] = weakref.WeakKeyDictionary()


def complete_keys(source: Source, config: JointImageConfig, split: str) -> list[RecordKey]:
    """The records of a split whose mask shows every structure that the method has a channel for; the others are dropped.

    Masks are read once for each source, in parallel.

    Raises:
        DataError: the split is empty, or none of its records is complete.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    wanted = set(range(1, len(config.mask_names) + 1))
    if not wanted:
        return keys
    known = _codes_of.setdefault(source, {})
    unread = [key for key in keys if key.id not in known]
    with futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        known.update(zip([key.id for key in unread], threads.map(lambda key: _codes(source, key), unread)))
    complete = [key for key in keys if wanted <= known[key.id]]
    if not complete:
        found = sorted(set().union(*(known[key.id] for key in keys)))
        raise DataError(
            f"no record of split '{split}' has a mask with all of {', '.join(config.mask_names)} "
            f"(codes {sorted(wanted)}); codes found: {found or 'no masks'}"
        )
    return complete


def _codes(source: Source, key: RecordKey) -> frozenset[int]:
    mask = source.read(key).get("mask")
    return frozenset() if mask is None else frozenset(np.unique(mask).tolist())


def pairs(
    source: Source,
    config: JointImageConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
    labelled: bool = False,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "seed": int64 [B]}, and "label": int64 [B] if `labelled`.

    With 3 channels records need no mask, and there is no "label_map". Arguments are those of `Method.dataset`.

    Raises:
        DataError: no record is complete, records have no 8-bit image, or no label where one is asked for.
    """
    size, batch, masked = config.image_size, config.training.batch_size, config.channels > 3
    keys = complete_keys(source, config, split)
    spec = source.spec(keys).signature()
    image_spec = spec["image"]
    if image_spec.dtype != tf.uint8 or image_spec.shape.rank != 3 or image_spec.shape[-1] not in (1, 3):
        raise DataError(f"{config.slug} needs 8-bit photographs [H, W, 1 or 3], got {image_spec.dtype.name} {image_spec.shape}")
    if labelled and "label" not in spec:
        raise DataError(f"{config.slug} is conditional on classes, but this source's records have no label")
    cropped = training and config.random_crop < 1.0
    prepared_size = math.ceil(MARGIN * size) if cropped else size
    augmentation_seed = derive_seed(seed, "augmentation")

    def prepare(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.image.grayscale_to_rgb(record["image"]) if record["image"].shape[-1] == 1 else record["image"]
        mask = record["mask"] if masked else tf.zeros(tf.shape(image)[:2], tf.uint8)
        crop = transforms.crop_to_square if config.crop == "field_of_view" else centre_square
        image, mask = crop(image, mask)
        example = {"image": transforms.resize_image(image, (prepared_size, prepared_size))}
        if masked:
            example["mask"] = nearest(mask, prepared_size)
        if labelled:
            example["label"] = tf.cast(record["label"], tf.int64)
        return example

    def finish(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        index = example["index"]
        if training:
            own_seed = tf.bitwise.bitwise_xor(index, augmentation_seed)
            if cropped:
                example = random_square(example, own_seed, config.random_crop, size)
            flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
            example = transforms.flip(example, own_seed, **flips)
        batched = {"image": tf.ensure_shape(example["image"], [size, size, 3]), "seed": index}
        if masked:
            batched["label_map"] = tf.ensure_shape(example["mask"], [size, size])
        return batched | ({"label": example["label"]} if labelled else {})

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


def centre_square(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The middle square [S, S], S the shorter side, of an image [H, W, C] and its mask [H, W]."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side], mask[top : top + side, left : left + side]


def nearest(mask: tf.Tensor, size: int) -> tf.Tensor:
    """A label map [S, S] resized to [size, size] by nearest neighbour: no code appears that was not there."""
    resized = tf.image.resize(mask[..., tf.newaxis], [size, size], method="nearest")
    return resized[..., 0]


def random_square(example: dict[str, tf.Tensor], seed: tf.Tensor, smallest: float, size: int) -> dict[str, tf.Tensor]:
    """A square of random area and place, resized: the image bilinearly, the mask by nearest neighbour, on one grid.

    Args:
        example: "image" uint8 [P, P, 3], perhaps "mask" uint8 [P, P]; other entries pass through.
        seed: int64 scalar of this sample.
        smallest: area shares are uniform in [smallest, 1].
        size: of the result.
    """
    drawn = random.uniform(seed[tf.newaxis], (3,), "random square")[0]
    side = tf.sqrt(smallest + (1.0 - smallest) * drawn[0])
    corner = (1.0 - side) * drawn[1:]
    box = tf.concat([corner, corner + side], 0)[tf.newaxis]
    cropped = dict(example)
    for name, method in (("image", "bilinear"), ("mask", "nearest")):
        if name in example:
            planes = example[name] if name == "image" else example[name][..., tf.newaxis]
            resized = tf.image.crop_and_resize(planes[tf.newaxis], box, [0], [size, size], method=method)[0]
            resized = tf.saturate_cast(tf.round(resized), tf.uint8)
            cropped[name] = resized if name == "image" else resized[..., 0]
    return cropped
