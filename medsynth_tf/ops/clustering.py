"""k-means by Lloyd's iterations, with faiss's way with empty clusters; memory grows with the features and a chunk alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

CHUNK = 8192
"""Points whose distances are held at a time."""
_SPLIT = 1.0 / 1024.0
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Clustering:
    """What k-means found.

    Attributes:
        centroids: float32 [K, D].
        assignments: int32 [N], the nearest centroid of each point.
        objective: Σ squared distances to it.
        history: the objective before each iteration's update.
    """

    centroids: np.ndarray
    assignments: np.ndarray
    objective: float
    history: tuple[float, ...] = ()


def squared_distances(points: tf.Tensor, centroids: tf.Tensor) -> tf.Tensor:
    """‖x‖² - 2 x·c + ‖c‖² of points float32 [N, D] and centroids [K, D]: float32 [N, K], not below 0."""
    products = tf.matmul(points, centroids, transpose_b=True)
    squares = tf.reduce_sum(points**2, 1, keepdims=True) + tf.reduce_sum(centroids**2, 1)
    return tf.maximum(squares - 2.0 * products, 0.0)


@tf.function(
    input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([None, None])],
    reduce_retracing=True,
)
def _assign(points: tf.Tensor, centroids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Nearest centroid and squared distance of each point, and sums and counts of the points of each centroid."""
    distances = squared_distances(points, centroids)
    nearest = tf.argmin(distances, 1, output_type=tf.int32)
    count = tf.shape(centroids)[0]
    sums = tf.math.unsorted_segment_sum(points, nearest, count)
    return nearest, tf.reduce_min(distances, 1), sums, tf.math.bincount(nearest, minlength=count, maxlength=count)


def kmeans(features: np.ndarray, clusters: int, seed: int, iterations: int = 20, chunk: int = CHUNK) -> Clustering:
    """Lloyd's algorithm from K random points.

    In each iteration a cluster without points takes over half of another: donors are drawn with a chance that grows with their
    number of points less one, and the two copies of the centroid move apart by 1/1024, by alternate coordinates (faiss). At the
    end such a cluster moves to the point farthest from its centroid, until none is empty, or fewer than K distinct points are left.

    Args:
        features: float32 [N, D].
        clusters: K, at most N.
        seed: of first centroids and donors.
        iterations: of assignment and update.
        chunk: points whose distances to all centroids are in memory at a time.

    Raises:
        ValueError: more clusters than points.
    """
    count = len(features)
    if clusters > count:
        raise ValueError(f"k-means of {count} points into {clusters} clusters: there must be at least as many points")
    rng = np.random.default_rng(seed)
    centroids = features[rng.choice(count, clusters, replace=False)].astype(np.float32)
    history = []
    for _ in range(iterations):
        _, distances, sums, counts = _pass(features, centroids, chunk)
        history.append(float(distances.sum()))
        centroids = _split_into_empty(_means(sums, counts, centroids), counts.astype(np.float64), rng)
    nearest, distances, _, counts = _pass(features, centroids, chunk)
    rounding = _ROUNDING * float((features.astype(np.float64) ** 2).sum(1).max())  # points nearer than this are one
    for _ in range(clusters):
        if counts.min() > 0 or distances.max() <= rounding:
            break
        centroids[np.flatnonzero(counts == 0)[0]] = features[distances.argmax()]
        _, _, sums, counts = _pass(features, centroids, chunk)
        centroids = _means(sums, counts, centroids)  # those who lost points move as well
        nearest, distances, _, counts = _pass(features, centroids, chunk)
    return Clustering(centroids, nearest, float(distances.sum()), tuple(history))


def _pass(features: np.ndarray, centroids: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`_assign` over all points, chunk by chunk; sums in float64."""
    nearest = np.empty(len(features), np.int32)
    distances = np.empty(len(features), np.float64)
    sums, counts = np.zeros(centroids.shape, np.float64), np.zeros(len(centroids), np.int64)
    moved = tf.constant(centroids)
    for start in range(0, len(features), chunk):
        part = features[start : start + chunk]
        found = _assign(tf.constant(part), moved)
        nearest[start : start + chunk], distances[start : start + chunk] = found[0].numpy(), found[1].numpy()
        # the quick form loses digits near 0, where it matters whether two points are one
        exact = distances[start : start + chunk] < 1e-5
        if exact.any():
            own = centroids[nearest[start : start + chunk][exact]].astype(np.float64)
            distances[start : start + chunk][exact] = ((part[exact] - own) ** 2).sum(1)
        sums += found[2].numpy()
        counts += found[3].numpy()
    return nearest, distances, sums, counts


def _means(sums: np.ndarray, counts: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Of each centroid's points; a centroid without points stays where it is."""
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centroids).astype(np.float32)


def _split_into_empty(centroids: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    signs = np.where(np.arange(centroids.shape[1]) % 2 == 0, 1.0, -1.0) * _SPLIT
    for empty in np.flatnonzero(counts == 0):
        chances = np.maximum(counts - 1.0, 0.0)
        if chances.sum() == 0.0:
            break
        donor = rng.choice(len(counts), p=chances / chances.sum())
        centroids[empty] = centroids[donor] * (1.0 + signs)
        centroids[donor] = centroids[donor] * (1.0 - signs)
        counts[empty], counts[donor] = counts[donor] / 2, counts[donor] / 2
    return centroids
