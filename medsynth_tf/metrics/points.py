"""Found points against true ones: greedy one-to-one matching within a radius, and scores over all images together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.ops.point_matching import count_matches


def match_points(predicted: np.ndarray, truth: np.ndarray, radius: float) -> list[tuple[int, int]]:
    """Pairs of a found and a true point at most `radius` apart, the nearest pair of all first, each point in one pair at most.

    Args:
        predicted: [M, D].
        truth: [N, D].
        radius: largest distance of a pair, itself allowed.

    Returns:
        (index of the found point, index of the true one), nearest first.
    """
    if not len(predicted) or not len(truth):
        return []
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    distance = np.linalg.norm(predicted[:, np.newaxis] - truth[np.newaxis], axis=-1)
    pairs: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for flat in np.argsort(distance, axis=None, kind="stable"):
        found, true = (int(i) for i in np.unravel_index(flat, distance.shape))
        if distance[found, true] > radius:
            break
        if found not in used[0] and true not in used[1]:
            pairs.append((found, true))
            used[0].add(found)
            used[1].add(true)
    return pairs


def point_scores(images: Iterable[tuple[np.ndarray, np.ndarray]], radius: float) -> dict[str, Any]:
    """Precision, sensitivity and F1 of counts that are added up over all images (micro-average).

    Args:
        images: (found points [M, D], true points [N, D]) of each.
        radius: as for `match_points`.

    Returns:
        {"precision", "sensitivity", "f1" (None where undefined), "true_positives", "false_positives", "false_negatives",
        "distance" (mean of matched pairs; None without any), "images"}.
    """
    positives = wrong = missed = count = 0
    distances: list[float] = []
    for predicted, truth in images:
        pairs = match_points(predicted, truth, radius)
        positives += len(pairs)
        wrong += len(predicted) - len(pairs)
        missed += len(truth) - len(pairs)
        count += 1
        distances += [float(np.linalg.norm(np.subtract(predicted[i], truth[j]))) for i, j in pairs]
    found, true = positives + wrong, positives + missed
    return {
        "precision": positives / found if found else None,
        "sensitivity": positives / true if true else None,
        "f1": 2 * positives / (found + true) if found + true else None,
        "true_positives": positives,
        "false_positives": wrong,
        "false_negatives": missed,
        "distance": float(np.mean(distances)) if distances else None,
        "images": count,
    }


class PointF1(tf.keras.metrics.Metric):
    """F1 of found points over all images of a pass, counted inside the graph.

    Args:
        radius: as for `match_points`.
    """

    def __init__(self, radius: float, name: str = "f1", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.radius = radius
        self.matched, self.found, self.true = (
            self.add_weight(part, initializer="zeros") for part in ("matched", "found", "true")
        )

    def update_state(self, truth: tf.Tensor, points: tf.Tensor, count: tf.Tensor) -> None:
        """Adds a batch.

        Args:
            truth: float32 [B, Q, 2], NaN in rows that are no points.
            points: float32 [B, P, 2].
            count: int32 [B], how many of the first rows of `points` are points.
        """
        there = tf.reduce_all(tf.math.is_finite(truth), -1)
        found = tf.range(tf.shape(points)[1]) < count[:, tf.newaxis]
        matches = count_matches(points, found, truth, there, self.radius)
        for variable, value in ((self.matched, matches), (self.found, count), (self.true, there)):
            variable.assign_add(tf.reduce_sum(tf.cast(value, tf.float32)))

    def result(self) -> tf.Tensor:
        """2·TP / (found + true); 0 without any."""
        return tf.math.divide_no_nan(2.0 * self.matched, self.found + self.true)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "radius": self.radius}
