"""Which images an epoch trains on."""

from __future__ import annotations

import numpy as np


def uniform_over_clusters(assignments: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """As many images of each cluster that has any, in random order.

    Each of the K' such clusters gives ⌊length / K'⌋ + 1 images, without replacement where it has more of them; the whole is shuffled
    and cut.

    Args:
        assignments: the cluster of each image, integers [N].
        length: how many are wanted.
        rng: random numbers.

    Returns:
        Positions int64 [length].
    """
    clusters = np.unique(assignments)
    each = length // len(clusters) + 1
    drawn = []
    for cluster in clusters:
        members = np.flatnonzero(assignments == cluster)
        drawn.append(rng.choice(members, each, replace=len(members) <= each))
    return rng.permutation(np.concatenate(drawn))[:length].astype(np.int64)


def natural(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Each of `count` images as often as the others, to within one, pass by pass: positions int64 [length]."""
    passes = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(passes)[:length].astype(np.int64)
