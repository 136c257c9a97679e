"""Two sets as one training set in which both are seen equally often, whatever their sizes."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator


def balanced_order(first: int, second: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: each image of the larger set once, and as many of the smaller, which is gone through again and again.

    Args:
        first: images of set 0.
        second: images of set 1.
        seed: of the order.
        epoch: another one has another order.

    Returns:
        int64 [2·max(first, second), 2]: set and position in it, shuffled.

    Raises:
        DataError: a set is empty.
    """
    if min(first, second) < 1:
        raise DataError(f"sets of {first} and {second} images cannot be balanced: both need one at least")
    length = max(first, second)
    rng = numpy_generator(seed, "balanced order", epoch)
    order = [(part, position) for part, count in enumerate((first, second)) for position in repeated(count, length, rng)]
    return rng.permutation(np.array(order, np.int64))


def repeated(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` positions below `count`: whole shuffled passes, the last one cut."""
    passes = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(passes)[:length]
