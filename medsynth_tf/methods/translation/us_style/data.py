"""Records to random pairs of a content and a style image."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data import transforms
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import Source
from medsynth_tf.methods.translation.us_style.config import USStyleConfig


def batches(
    source: Source,
    config: USStyleConfig,
    split: str,
    seed: int,
    first_step: int,
    epochs: int | None,
    training: bool,
) -> tf.data.Dataset:
    """Batches of pairs: each pass over the contents goes with another shuffled pass over the styles, so that a pair may be of any two
    records, of one machine or of two, or twice the same.

    Returns:
        "content", "style": uint8 [B, S, S, 1], grey, resized, otherwise as they are; "seed": int64 [B]; where records have them
        "label_map": uint8 [B, S, S], the content's, and "content_label", "style_label": int64 [B].

    Raises:
        DataError: the split is empty, or images are not 8-bit with one or three channels.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    spec = source.spec(keys).signature()
    image_spec, size = spec["image"], (config.image_size, config.image_size)
    if image_spec.dtype != tf.uint8 or image_spec.shape.rank != 3 or image_spec.shape[-1] not in (1, 3):
        raise DataError(f"us_style needs 8-bit images [H, W, 1 or 3], got {image_spec.dtype.name} {image_spec.shape}")

    def prepare(record: Example) -> Example:
        image = record["image"]
        if image.shape[-1] == 3:
            image = tf.image.rgb_to_grayscale(image)
        example = {"image": tf.ensure_shape(transforms.resize_image(image, size), [*size, 1])}
        if "mask" in record:
            mask = tf.image.resize(record["mask"][..., tf.newaxis], size, "nearest")[..., 0]
            example["mask"] = tf.ensure_shape(mask, size)
        return example | ({"label": record["label"]} if "label" in record else {})

    def stream(own_seed: int, shuffle: bool) -> tf.data.Dataset:
        return prepared_stream(
            source,
            keys,
            prepare,
            seed=own_seed,
            shuffle=shuffle,
            epochs=epochs,
            skip=first_step * config.training.batch_size,
            anew=training and epochs is not None,
            cache=config.data.cache and training,
        )

    flips = {"horizontal": config.data.flip_horizontal, "vertical": config.data.flip_vertical}
    flip_seed = derive_seed(seed, "flips")

    def pair(content: Example, style: Example) -> Example:
        index = content.pop("index")
        if training:
            content = transforms.flip(content, tf.bitwise.bitwise_xor(index, flip_seed), **flips)
        example = {"content": content["image"], "style": style["image"], "seed": index}
        if "mask" in content:
            example["label_map"] = content["mask"]
        if "label" in content:
            example |= {"content_label": content["label"], "style_label": style["label"]}
        return example

    pairs = tf.data.Dataset.zip((stream(derive_seed(seed, "content"), training), stream(derive_seed(seed, "style"), True)))
    pairs = pairs.map(pair, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return pairs.batch(config.training.batch_size, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
