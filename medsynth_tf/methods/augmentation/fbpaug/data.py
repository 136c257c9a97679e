"""Slices to batches: resampled, sampled by patient and lesion, augmented, turned, padded to a common size."""

from __future__ import annotations

import concurrent.futures
import os
from collections import defaultdict
from collections.abc import Callable, Sequence

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.folds import Folds
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.layers.filtered_back_projection import FilteredBackProjection
from medsynth_tf.methods.augmentation.fbpaug.config import FBPAugConfig
from medsynth_tf.methods.augmentation.fbpaug.intensity import augmented_input, network_input
from medsynth_tf.ops import random
from medsynth_tf.ops.convolution_kernels import AIR_HU

LESION = 1


def folded(source: Source, config: FBPAugConfig) -> Source:
    """The source, split by cross-validation if the configuration asks for it."""
    own = config.folds
    return source if own.folds is None else Folds(source, own.folds, own.fold, own.validation_patients, config.seed)


def split_keys(source: Source, config: FBPAugConfig, split: str) -> list[RecordKey]:
    """The records of a split, in the order of `batches` that are not for training; 'all' is not split at all."""
    if split == "all":
        return source.keys()
    return folded(source, config).split(split, config.data.split_fractions, config.seed)


def make_layer(config: FBPAugConfig, training: bool) -> FilteredBackProjection:
    """The augmentation of training slices, or that which is served: it changes every slice, with all the angles that it holds."""
    own = config.augment.kernels
    values = own.to_dict()
    probability = config.augment.probability if training else 1.0
    return FilteredBackProjection(probability, angles_per_pixel=0.5 if training else 1.0, **values)


def batches(
    source: Source,
    config: FBPAugConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches of slices, padded to the largest of each batch.

    Of arguments see `Method.dataset`.

    Returns:
        "image": float32 [B, H, W, 1], HU, padded with air: the slice as served, in training turned and not otherwise changed;
        "input": float32 [B, H, W, 1], padded with zeros: what the network sees, in training augmented;
        "mask": uint8 [B, H, W], 1 lesion, padded with zeros; of zeros where records have none, which training refuses;
        "size": int32 [B, 2], height and width before padding; "seed": int64 [B].

    Raises:
        DataError: the split is empty, or records have no mask or are no single-channel slices.
    """
    batch = config.training.batch_size
    keys = split_keys(source, config, split)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    prepare = _preparation(source, keys, config, training)
    choose = None
    if training and config.lesion_probability is not None:
        choose = _lesion_sampling(source, keys, config.lesion_probability, seed)
    layer = make_layer(config, training=True) if config.augment.kind == "fbp" else None
    salt = derive_seed(seed, "augmentation")

    def finish(example: Example) -> Example:
        image, mask, index = example["image"], example["mask"], example["index"]
        sample = tf.bitwise.bitwise_xor(index, salt)
        seeds = sample[tf.newaxis]
        if not training:
            seen = network_input(image[tf.newaxis], config)[0]
        else:
            changed = image if layer is None else tf.ensure_shape(layer(image[..., 0], sample)[..., tf.newaxis], image.shape)
            seen = augmented_input(changed[tf.newaxis], seeds, config)[0]
            image, seen, mask = _turned(image, seen, mask, seeds, config)
        return {"image": image, "input": seen, "mask": mask, "size": tf.shape(mask), "seed": index if not training else sample}

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
        choose=choose,
    )
    examples = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    background = {
        "image": tf.constant(AIR_HU, tf.float32),
        "input": tf.constant(0.0),
        "mask": tf.constant(0, tf.uint8),
        "size": tf.constant(0),
        "seed": tf.constant(0, tf.int64),
    }
    padded = examples.padded_batch(batch, padding_values=background, drop_remainder=training)
    return padded.prefetch(tf.data.AUTOTUNE)


def _preparation(
    source: Source, keys: Sequence[RecordKey], config: FBPAugConfig, training: bool
) -> Callable[[Example], Example]:
    """The graph function from a record to {"image": float32 [H, W, 1], "mask": uint8 [H, W]}, resampled."""
    spec = source.spec(keys).signature()
    image = spec["image"]
    if image.shape.rank != 3 or image.shape[-1] != 1 or image.dtype == tf.uint8:
        raise DataError(f"fbpaug needs slices [H, W, 1] in Hounsfield units, got {image.dtype.name} {image.shape}")
    if training and "mask" not in spec:
        raise DataError("training fbpaug needs a mask of every record (1 lesion); this source has records without")
    if config.pixel_spacing is not None and "spacing" not in spec:
        raise DataError("pixel_spacing needs the spacing of every record; set it to null to take slices as they are")

    def prepare(record: Example) -> Example:
        image = tf.cast(record["image"], tf.float32)
        mask = tf.cast(record["mask"] == LESION, tf.uint8) if "mask" in record else tf.zeros(tf.shape(image)[:2], tf.uint8)
        if config.pixel_spacing is not None:
            extent = tf.cast(tf.shape(mask), tf.float32) * record["spacing"]
            size = tf.maximum(tf.cast(tf.round(extent / config.pixel_spacing), tf.int32), 1)
            image, mask = resampled(image, mask, size)
        return {"image": image, "mask": mask}

    return prepare


def resampled(image: tf.Tensor, mask: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Image float32 [H, W, 1] by antialiased linear interpolation; mask uint8 [H, W], 1 where lesion covers half of the new pixel."""

    def resize(plane: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(plane, size, antialias=True)

    same = tf.reduce_all(size == tf.shape(mask))
    coverage = resize(tf.cast(mask, tf.float32)[..., tf.newaxis])[..., 0]
    image = tf.cond(same, lambda: image, lambda: resize(image))
    return tf.ensure_shape(image, [None, None, 1]), tf.cast(coverage >= 0.5, tf.uint8)


def _lesion_sampling(
    source: Source, keys: Sequence[RecordKey], probability: float, seed: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Index in the stream → position among the keys: a patient, then with `probability` a slice of it that holds lesion, if it has one,
    else any. Reads all masks once."""

    def has_lesion(key: RecordKey) -> bool:
        return bool((source.read(key)["mask"] == LESION).any())

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        lesions = list(threads.map(has_lesion, keys))
    patients: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        patients[key.patient_id].append(position)
    slices = list(patients.values())
    with_lesion = [[p for p in positions if lesions[p]] or positions for positions in slices]
    pool = tf.constant([p for group in slices + with_lesion for p in group], tf.int64)
    counts = tf.constant([len(group) for group in slices + with_lesion], tf.int64)
    starts = tf.cumsum(counts, exclusive=True)
    patient_count = tf.constant(len(slices), tf.int64)
    salt = derive_seed(seed, "slices")

    def choose(index: tf.Tensor) -> tf.Tensor:
        drawn = random.uniform(tf.bitwise.bitwise_xor(index, salt)[tf.newaxis], (3,), "slice")[0]
        group = _pick(drawn[0], patient_count) + tf.where(drawn[1] < probability, patient_count, 0)
        return pool[starts[group] + _pick(drawn[2], counts[group])]

    return choose


def _pick(place: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A number below `count` from one in [0, 1)."""
    return tf.minimum(tf.cast(place * tf.cast(count, tf.float32), tf.int64), count - 1)


def _turned(
    image: tf.Tensor, seen: tf.Tensor, mask: tf.Tensor, seeds: tf.Tensor, config: FBPAugConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """All three alike: with the configured probability turned by a random multiple of 90 degrees, and with it flipped along an axis."""
    axes = [axis for axis, chosen in ((1, config.data.flip_horizontal), (0, config.data.flip_vertical)) if chosen]
    probability = config.augment.turn_probability
    drawn = random.uniform(seeds, (4,), "turn")[0]
    turns = tf.where(drawn[0] < probability, tf.cast(drawn[1] * 4.0, tf.int32), 0)
    flipped = drawn[2] < probability
    chosen = tf.cast(drawn[3] * len(axes), tf.int32)

    def turn(plane: tf.Tensor) -> tf.Tensor:
        turned = tf.image.rot90(plane, turns)
        for place, axis in enumerate(axes):
            turned = tf.where(flipped & (chosen == place), tf.reverse(turned, [axis]), turned)
        return tf.ensure_shape(turned, [None, None, 1])

    return turn(image), turn(seen), turn(mask[..., tf.newaxis])[..., 0]
