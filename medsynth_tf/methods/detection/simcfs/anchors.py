"""Anchors that fit the boxes of a training set (YOLOv5's automatic anchors)."""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import kmeans

from medsynth_tf.core.seeds import numpy_generator

LEAST_RECALL = 0.98
_GENERATIONS, _MUTATION = 1000, 0.1


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray, ratio: float) -> float:
    """Share of boxes that match an anchor: whose sides differ from its by less than the factor `ratio`.

    Args:
        sizes: (width, height) [N, 2].
        anchors: [K, 2].
        ratio: above 1.
    """
    return float((_fit(sizes, anchors).max(1) > 1 / ratio).mean())


def _fit(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The worse of the two sides' ratios, at most 1, [N, K]."""
    ratio = sizes[:, np.newaxis] / anchors[np.newaxis]
    return np.minimum(ratio, 1 / ratio).min(-1)


def estimate_anchors(sizes: np.ndarray, count: int, ratio: float, seed: int) -> np.ndarray:
    """k-means of box sizes, then random changes of which those are kept that fit better.

    Args:
        sizes: (width, height) [N, 2].
        count: K, at most N.
        ratio: as for `best_possible_recall`.
        seed: of both.

    Returns:
        float64 [K, 2] by area.
    """
    rng = numpy_generator(seed, "anchors")
    sizes = np.asarray(sizes, np.float64)
    spread = np.maximum(sizes.std(0), 1e-6)
    means, _ = kmeans(sizes / spread, count, iter=20, seed=rng)
    anchors = means * spread
    while len(anchors) < count:  # fewer distinct sizes than anchors
        anchors = np.concatenate([anchors, sizes[rng.integers(len(sizes), size=1)] * rng.uniform(0.8, 1.25, [1, 2])])

    def fitness(candidates: np.ndarray) -> float:
        best = _fit(sizes, candidates).max(1)
        return float((best * (best > 1 / ratio)).mean())

    best = fitness(anchors)
    for _ in range(_GENERATIONS):
        changed = anchors * np.clip(1 + rng.uniform() * _MUTATION * rng.standard_normal(anchors.shape), 0.3, 3.0)
        score = fitness(changed)
        if score > best:
            anchors, best = changed, score
    return anchors[np.argsort(anchors.prod(1))]
