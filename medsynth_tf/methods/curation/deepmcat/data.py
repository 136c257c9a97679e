"""Records to batches, by their positions in the split, so that a round can choose."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.pipelines import Example, prepared_stream
from medsynth_tf.data.source import RecordKey, Source, stream_order
from medsynth_tf.methods.curation.deepmcat.config import DeepMCATConfig
from medsynth_tf.methods.curation.deepmcat.views import loaded

Choose = Callable[[tf.Tensor], tf.Tensor]


class ImageSet:
    """The images of a split, read as they are needed or, with `data.cache`, once.

    Args:
        source: the records.
        config: sizes, channels, cache.
        split: its name.

    Raises:
        DataError: the split is empty, or images have other than 1 or 3 channels or are volumes.
    """

    def __init__(self, source: Source, config: DeepMCATConfig, split: str):
        self.source, self.config = source, config
        self.keys: list[RecordKey] = source.split(split, config.data.split_fractions, config.seed)
        if not self.keys:
            raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
        shape = source.spec(self.keys).signature()["image"].shape
        if shape.rank != 3 or shape[-1] not in (1, 3):
            raise DataError(f"deepmcat needs images [H, W, 1 or 3], got {shape}; volumes are sorted slice by slice")

    @property
    def labels(self) -> list[int] | None:
        """Of all records, or None if one has none."""
        found = [key.label for key in self.keys]
        return None if any(label is None for label in found) else [int(label) for label in found if label is not None]

    def _prepare(self, record: Example) -> Example:
        own = self.config.input
        image = tf.squeeze(loaded(record["image"][tf.newaxis], own.loaded_size, own.channels), 0)
        return {"image": tf.ensure_shape(image, [own.loaded_size, own.loaded_size, own.channels])}

    @functools.cached_property
    def _kept(self) -> tf.Tensor:
        stream = prepared_stream(self.source, self.keys, self._prepare, seed=0, shuffle=False, epochs=1)
        return stream.map(lambda example: example["image"]).batch(len(self.keys)).get_single_element()

    def batches(self, choose: Choose, passes: int | None, skip: int, whole: bool, anew: bool = False) -> tf.data.Dataset:
        """Batches {"image": float32 [B, L, L, C], "position": int64 [B], "seed": int64 [B]}.

        Args:
            choose: graph function from the index in the stream to a position among `keys`, both int64 scalars.
            passes: examples are `passes` times as many as records; None: for ever.
            skip: examples to leave out at the start.
            whole: drop the last batch if it is not whole.
            anew: as for `Source.stream`.
        """
        batch = self.config.training.batch_size
        count = len(self.keys)
        if self.config.data.cache:
            kept = self._kept
            order = stream_order(count, 0, False, passes, skip, anew, choose)
            stream = order.map(lambda index, position: {"image": tf.gather(kept, position), "index": index})
        else:
            stream = prepared_stream(
                self.source,
                self.keys,
                self._prepare,
                seed=0,
                shuffle=False,
                epochs=passes,
                skip=skip,
                anew=anew,
                choose=choose,
            )
        stream = stream.map(lambda e: {"image": e["image"], "position": choose(e["index"]), "seed": e["index"]})
        return stream.batch(batch, drop_remainder=whole).prefetch(tf.data.AUTOTUNE)


def in_order(count: int) -> Choose:
    """Position i for index i, pass by pass."""
    return lambda index: index % count


def shuffled(count: int, seed: int) -> Choose:
    """Each pass a permutation by (seed, pass)."""

    def choose(index: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(derive_seed(seed, "stream"), tf.int64), index // count])
        return tf.random.experimental.index_shuffle(index % count, key, tf.constant(count - 1, tf.int64))

    return choose


def mean_and_deviation(images: ImageSet) -> np.ndarray:
    """Of all pixels, batch by batch, float32 [2]."""
    count, total, squares = 0, 0.0, 0.0
    for batch in images.batches(in_order(len(images.keys)), 1, 0, whole=False):
        values = batch["image"].numpy().astype(np.float64)
        count, total, squares = count + values.size, total + values.sum(), squares + (values**2).sum()
    mean = total / count
    return np.array([mean, np.sqrt(max(squares / count - mean**2, 0.0))], np.float32)
