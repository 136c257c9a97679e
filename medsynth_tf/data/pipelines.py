"""From a source to prepared examples, read as they are needed or kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.source import RecordKey, Source, stream_order

Example = dict[str, tf.Tensor]


def prepared_stream(
    source: Source,
    keys: Sequence[RecordKey],
    prepare: Callable[[Example], Example],
    *,
    seed: int,
    shuffle: bool,
    epochs: int | None,
    skip: int = 0,
    anew: bool = False,
    cache: bool = False,
    choose: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """`source.stream` with `prepare` applied to each record.

    Args:
        source, keys, seed, shuffle, epochs, skip, anew, choose: as for `Source.stream`.
        prepare: a graph function from a record's tensors to an example's; `index` is handed on.
        cache: read and prepare each record once, now, and keep the examples in memory, which must all have one shape. For sets
            that are small after preparation: memory grows with their number.

    Raises:
        DataError: `cache`, and the examples differ in shape.
    """
    if not cache:
        records = source.stream(keys, seed=seed, shuffle=shuffle, epochs=epochs, skip=skip, anew=anew, choose=choose)
        return records.map(
            lambda record: {**prepare(record), "index": record["index"]},
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    once = source.stream(keys, shuffle=False, epochs=1).map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    try:
        kept = once.batch(len(keys)).get_single_element()
    except tf.errors.InvalidArgumentError as error:
        if "different shapes" not in error.message:
            raise
        raise DataError("data.cache keeps examples that are all of one size, and these are not: set it to false") from error

    def example(index: tf.Tensor, position: tf.Tensor) -> Example:
        return {**{name: tf.gather(values, position) for name, values in kept.items()}, "index": index}

    return stream_order(len(keys), seed, shuffle, epochs, skip, anew, choose).map(example, num_parallel_calls=tf.data.AUTOTUNE)
