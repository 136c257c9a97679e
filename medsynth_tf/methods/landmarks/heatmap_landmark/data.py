"""Records with landmarks to batches, split by surgery, one domain or two."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.landmarks.heatmap_landmark.config import DOMAINS, FOLDS, HeatmapLandmarkConfig


def keys_of(source: Source, config: HeatmapLandmarkConfig, split: str, domain: str) -> list[RecordKey]:
    """The records of a domain in a split; with a fold, 'val' and 'test' are its surgeries and 'train' all others.

    A domain that is only trained with gives all its records to 'train', unless the split fractions hold some out.
    """
    if config.fold is None or domain != config.domain:
        fractions = config.data.split_fractions
        keys = source.keys() if split == "all" or config.fold is not None else source.split(split, fractions, config.seed)
    else:
        held_out = FOLDS[domain][config.fold]
        keys = [key for key in source.keys() if split == "all" or (key.patient_id in held_out) == (split != "train")]
    own = DOMAINS[domain]
    return [key for key in keys if key.label == own or (key.label is None and domain == config.domain)]


def batches(
    source: Source,
    config: HeatmapLandmarkConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches {"image": uint8 [B, H, W, 3], "landmarks": float32 [B, P, 2] (NaN in rows that are none), "seed": int64 [B]}.

    Training batches of two domains begin with their `simulated_in_batch` simulator frames. The others arguments are those of
    `Method.dataset`.

    Raises:
        DataError: a split is empty, records have no landmarks or more than `decoder.max_points`, or no 8-bit RGB image.
    """
    batch = config.training.batch_size
    if not (training and config.mixes):
        keys = keys_of(source, config, split, config.domain)
        return _finish(_examples(source, config, keys, split, seed, first_step * batch, epochs, training), batch, training)
    simulated = config.simulated_in_batch
    parts = [("sim", simulated), ("intraop", batch - simulated)]
    streams = []
    for domain, count in parts:
        keys = keys_of(source, config, split, domain)
        own = domain == config.domain
        stream = _examples(
            source,
            config,
            keys,
            split,
            derive_seed(seed, domain) % 2**31,
            first_step * count,
            epochs if own else None,
            training,
        )
        streams.append(stream.batch(count, drop_remainder=True))

    def joined(first: Example, second: Example) -> Example:
        together = {name: tf.concat([first[name], second[name]], 0) for name in first}
        # streams number their own records: the two numbers of a position must not give the same random numbers
        shift = tf.repeat(tf.constant([derive_seed(0, "sim"), 0], tf.int64), [count for _, count in parts])
        return {**together, "seed": tf.bitwise.bitwise_xor(together["seed"], shift)}

    return tf.data.Dataset.zip(tuple(streams)).map(joined).prefetch(tf.data.AUTOTUNE)


def unpaired(source: Source, config: HeatmapLandmarkConfig, seed: int, first_step: int) -> tf.data.Dataset:
    """Endless training batches {"sim", "intraop": uint8 [B, H, W, 3], "seed": int64 [B]} of the translator."""
    count = config.translator.batch_size
    streams = tuple(
        _examples(
            source,
            config,
            keys_of(source, config, "train", domain),
            "train",
            derive_seed(seed, "unpaired", domain) % 2**31,
            first_step * count,
            None,
            True,
        ).batch(count, drop_remainder=True)
        for domain in ("sim", "intraop")
    )
    return tf.data.Dataset.zip(streams).map(
        lambda sim, intraop: {"sim": sim["image"], "intraop": intraop["image"], "seed": sim["seed"]}
    )


def _finish(examples: tf.data.Dataset, batch: int, training: bool) -> tf.data.Dataset:
    return examples.batch(batch, drop_remainder=training).prefetch(tf.data.AUTOTUNE)


def _examples(
    source: Source,
    config: HeatmapLandmarkConfig,
    keys: Sequence[RecordKey],
    split: str,
    seed: int,
    skip: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    if not keys:
        raise DataError(f"split '{split}' has no record for train_domains = '{config.train_domains}', fold = {config.fold}")
    spec = source.spec(keys).signature()
    image = spec["image"]
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] != 3:
        raise DataError(f"heatmap_landmark needs 8-bit images [H, W, 3], got {image.dtype.name} {image.shape}")
    if "landmarks" not in spec:
        raise DataError("heatmap_landmark needs records with landmarks, which may be empty lists; this source has none")
    size, limit = (config.image_height, config.image_width), config.decoder.max_points

    def prepare(record: Example) -> Example:
        height, width = tf.shape(record["image"])[0], tf.shape(record["image"])[1]
        scale = tf.constant(size, tf.float32) / tf.cast(tf.stack([height, width]), tf.float32)
        # centres of pixels: the first pixel of a grid half as fine lies between the first two
        points = (record["landmarks"] + 0.5) * scale - 0.5
        count = tf.shape(points)[0]
        few = tf.debugging.assert_less_equal(count, limit, f"more landmarks than decoder.max_points = {limit}")
        with tf.control_dependencies([few]):
            points = tf.pad(points, [[0, limit - count], [0, 0]], constant_values=float("nan"))
        resized = transforms.resize_image(record["image"], size)
        return {"image": tf.ensure_shape(resized, [*size, 3]), "landmarks": tf.ensure_shape(points, [limit, 2])}

    stream = prepared_stream(
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
    return stream.map(lambda e: {"image": e["image"], "landmarks": e["landmarks"], "seed": e["index"]})
