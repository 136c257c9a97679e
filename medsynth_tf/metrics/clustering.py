"""How well a partition fits another: purity and normalised mutual information."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


def normalised_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """2·I(X; Y) / (H(X) + H(Y)), in [0, 1] (Schütze et al., Introduction to Information Retrieval, section 16.3).

    Two partitions into one cluster agree, 1; one such against any other says nothing, 0.

    Args:
        first, second: the cluster of each element, integers [N].
    """
    return float(normalized_mutual_info_score(first, second, average_method="arithmetic"))


def purity(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Share of elements that have the commonest label of their cluster; grows with the number of clusters.

    Args:
        clusters, labels: integers [N].
    """
    return float(contingency_matrix(labels, clusters).max(axis=0).sum() / len(labels))
