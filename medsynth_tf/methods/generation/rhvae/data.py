"""Records to batches: resized, perhaps flipped, of all classes or of one; uint8 until inside the model."""

from __future__ import annotations

from collections import defaultdict

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.generation.rhvae.config import RHVAEConfig

NO_SLOT = -1


def keys_by_class(source: Source, config: RHVAEConfig, split: str) -> dict[int, list[RecordKey]]:
    """The split's records by class 0 … classes - 1; all in class 0 where there is one class.

    Raises:
        DataError: the split is empty, a record has no label, or one beyond the classes.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    if not config.conditional:
        return {0: keys}
    found: dict[int, list[RecordKey]] = defaultdict(list)
    for key in keys:
        if key.label is None:
            raise DataError(f"record '{key.id}' has no label; rhvae trains a model for each class (or set classes to 1)")
        if not 0 <= key.label < config.classes:
            raise DataError(f"record '{key.id}': label {key.label} is beyond classes = {config.classes}")
        found[key.label].append(key)
    return found


def slots(source: Source, config: RHVAEConfig) -> dict[str, int]:
    """Where each training record's centroid is stored, by id; records beyond `metric.centroids` of their class have none.

    If a class has more, those that are kept are an even choice over the class's records in the source's order.
    """
    placed: dict[str, int] = {}
    most = config.metric.centroids
    for keys in keys_by_class(source, config, "train").values():
        kept = min(most, len(keys))
        placed.update({keys[slot * len(keys) // kept].id: slot for slot in range(kept)})
    return placed


def batches(
    source: Source,
    config: RHVAEConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
    label: int | None = None,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, H, W, C], "label", "seed", "slot": int64 [B]}; "slot" is where the image's centroid is stored, or -1.

    Args:
        label: records of this class alone.
        batch_size: B; default: the configuration's.

    The others are those of `Method.dataset`.

    Raises:
        DataError: there is no such record, records have no 8-bit image, or labels are missing or beyond the classes.
    """
    batch = batch_size or config.training.batch_size
    chosen = keys_by_class(source, config, split)
    order = {key.id for key in (chosen.get(label, []) if label is not None else [k for keys in chosen.values() for k in keys])}
    keys = [key for key in source.split(split, config.data.split_fractions, config.seed) if key.id in order]
    if not keys:
        raise DataError(f"split '{split}' has no record of class {label}")
    prepare = _preparation(source, keys, config)
    placed = slots(source, config) if split == "train" else {}
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(placed) or [""]), tf.constant(list(placed.values()) or [NO_SLOT], tf.int64)
        ),
        default_value=NO_SLOT,
    )
    flip_seed = derive_seed(seed, "flips")

    def finish(example: Example) -> Example:
        index = example["index"]
        if training:
            flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
            example = transforms.flip(example, tf.bitwise.bitwise_xor(index, flip_seed), **flips)
        return {"image": example["image"], "label": example["label"], "seed": index, "slot": table.lookup(example["id"])}

    examples = prepared_stream(
        source,
        keys,
        prepare,
        seed=seed,
        shuffle=training,
        epochs=epochs,
        skip=first_step * batch,
        anew=training and epochs is not None,
        cache=config.data.cache,
    )
    examples = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)


def _preparation(source: Source, keys: list[RecordKey], config: RHVAEConfig):
    """The graph function from a record to {"id", "image", "label"}."""
    spec = source.spec(keys).signature()
    image_spec = spec["image"]
    if image_spec.dtype != tf.uint8 or image_spec.shape.rank != 3 or image_spec.shape[-1] not in (1, 3):
        raise DataError(f"rhvae needs 8-bit images [H, W, 1 or 3], got {image_spec.dtype.name} {image_spec.shape}")

    def prepare(record: Example) -> Example:
        image = record["image"]
        if image.shape[-1] != config.channels:
            image = tf.image.grayscale_to_rgb(image) if config.channels == 3 else tf.image.rgb_to_grayscale(image)
        image = tf.ensure_shape(transforms.resize_image(image, config.image_size), config.image_shape)
        label = record["label"] if config.conditional else tf.constant(0, tf.int64)
        return {"id": record["id"], "image": image, "label": label}

    return prepare
