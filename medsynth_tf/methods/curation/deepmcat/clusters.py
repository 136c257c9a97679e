"""Features to clusters: L2 norm, whitened principal components, k-means; and what a clustering is worth."""

from __future__ import annotations

import dataclasses

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from medsynth_tf.core.errors import DataError
from medsynth_tf.methods.curation.deepmcat.config import ClusteringConfig
from medsynth_tf.metrics.clustering import normalised_mutual_information, purity
from medsynth_tf.ops.clustering import Clustering, kmeans

_LEAST_EIGENVALUE = 1e-8


@dataclasses.dataclass(frozen=True)
class RoundLog:
    """What is known of a clustering.

    Attributes:
        round: number, from 0; the last one is made after the last epoch.
        objective: Σ squared distances to centroids.
        nmi_previous: NMI with the clustering before; 0 in the first.
        nonempty: clusters with images.
        sizes: images of each cluster.
        purity, nmi_labels: against labels, which training never sees; None without.
    """

    round: int
    objective: float
    nmi_previous: float
    nonempty: int
    sizes: list[int]
    purity: float | None = None
    nmi_labels: float | None = None


def l2_normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32 [N, D]; a row of zeros stays one."""
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1.0)).astype(np.float32)


def whitening(features: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components scaled to unit variance.

    Args:
        features: float32 [N, D], N > components.
        components: R.

    Returns:
        Offset float32 [D] and projection float32 [D, R]; (x - offset) @ projection has covariance 1.

    Raises:
        DataError: there are too few images.
    """
    if len(features) <= components:
        raise DataError(f"{len(features)} images: too few for clustering.components = {components}")
    offset = features.mean(0, dtype=np.float64)
    second = np.zeros([features.shape[1]] * 2)
    for start in range(0, len(features), 4096):
        part = features[start : start + 4096] - offset
        second += part.T @ part
    values, vectors = np.linalg.eigh(second / len(features))
    values, vectors = values[::-1][:components], vectors[:, ::-1][:, :components]
    scales = np.maximum(values, _LEAST_EIGENVALUE * max(values[0], np.finfo(np.float64).tiny))
    return offset.astype(np.float32), (vectors / np.sqrt(scales)).astype(np.float32)


def find_clusters(features: np.ndarray, config: ClusteringConfig, seed: int) -> Clustering:
    """By the configuration's clusterer.

    Args:
        features: float32 [N, D].
        config: k and the clusterer.
        seed: of the clustering.

    Raises:
        DataError: there are fewer images than clusters.
    """
    if len(features) < config.clusters:
        raise DataError(f"{len(features)} training images: fewer than clustering.clusters = {config.clusters}")
    if config.clusterer == "kmeans":
        return kmeans(features, config.clusters, seed, config.iterations)
    found = MiniBatchKMeans(
        config.clusters, init="random", n_init=1, max_iter=config.iterations, random_state=seed % 2**32, compute_labels=True
    ).fit(features)
    return Clustering(found.cluster_centers_.astype(np.float32), found.labels_.astype(np.int32), float(found.inertia_))


def round_log(number: int, found: Clustering, previous: np.ndarray, clusters: int, labels: list[int] | None) -> RoundLog:
    """Judges a clustering against the one before, [N] or empty, and against labels."""
    sizes = np.bincount(found.assignments, minlength=clusters)
    comparable = len(previous) == len(found.assignments)
    return RoundLog(
        round=number,
        objective=found.objective,
        nmi_previous=normalised_mutual_information(previous, found.assignments) if comparable else 0.0,
        nonempty=int((sizes > 0).sum()),
        sizes=sizes.tolist(),
        purity=None if labels is None else purity(found.assignments, np.asarray(labels)),
        nmi_labels=None if labels is None else normalised_mutual_information(found.assignments, np.asarray(labels)),
    )


def majority_labels(clusters: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The commonest label of each cluster among labelled examples, the smallest of equals; -1 where a cluster has none.

    Args:
        clusters, labels: integers [N], labels not below 0.
        count: K.

    Returns:
        int32 [K].
    """
    table = np.zeros([count, int(labels.max(initial=0)) + 1], np.int64)
    np.add.at(table, (clusters, labels), 1)
    return np.where(table.sum(1) > 0, table.argmax(1), -1).astype(np.int32)
