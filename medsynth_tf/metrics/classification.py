"""Quality of classifications, by scikit-learn, with the cases decided that it leaves open."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn import metrics

from medsynth_tf.core.errors import DataError


def _labels(truth: np.ndarray, predicted: np.ndarray, classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1 or truth.size == 0:
        raise DataError(f"truth {list(truth.shape)} and prediction {list(predicted.shape)}: expected one shape [N], N ≥ 1")
    for name, values in (("truth", truth), ("prediction", predicted)):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or (classes is not None and values.max() >= classes):
            allowed = "integers ≥ 0" if classes is None else f"integers 0 … {classes - 1}"
            raise DataError(f"{name}: expected {allowed}, got {values.dtype} {values.min()} … {values.max()}")
    return truth, predicted


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal labels.

    Args:
        truth, predicted: integers [N].

    Raises:
        DataError: shapes differ, no labels, or negative ones.
    """
    truth, predicted = _labels(truth, predicted)
    return float((truth == predicted).mean())


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur in truth of the share of their images that are labelled right; arguments as `accuracy`'s.

    Raises:
        DataError: as `accuracy`.
    """
    truth, predicted = _labels(truth, predicted)
    return float(np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)]))


def cohen_kappa(
    truth: np.ndarray, predicted: np.ndarray, classes: int, weights: Literal["linear", "quadratic"] | None = None
) -> float:
    """Cohen's κ, weighted by the distance of grades if asked; 1 for a perfect prediction, 0 for a constant one.

    Where truth and prediction are one and the same constant, agreement by chance is complete and κ is 0/0: 1 is returned, since
    nothing was predicted wrongly.

    Args:
        truth, predicted: integers [N] in 0 … classes-1.
        classes: how many there are.
        weights: None, 'linear' or 'quadratic'.

    Raises:
        DataError: as `accuracy`, and a label beyond the classes.
    """
    truth, predicted = _labels(truth, predicted, classes)
    if np.array_equal(truth, predicted):
        return 1.0
    return float(metrics.cohen_kappa_score(truth, predicted, labels=np.arange(classes), weights=weights))


def macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Mean F1 over the classes that occur in truth or prediction.

    Args and errors are those of `cohen_kappa`.
    """
    truth, predicted = _labels(truth, predicted, classes)
    return float(metrics.f1_score(truth, predicted, labels=np.union1d(truth, predicted), average="macro", zero_division=0))


def macro_auc(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Mean area under the ROC curve, one class against the rest, over the classes that truth has some but not only examples of.

    Args:
        truth: integers [N] in 0 … K-1.
        probabilities: [N, K], finite; rank within each class is all that counts.

    Returns:
        The mean, or None if truth is of one class, where no curve is defined.

    Raises:
        DataError: shapes do not fit, a label is beyond the columns, or a probability is not finite.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not np.isfinite(probabilities).all():
        raise DataError(f"probabilities {list(probabilities.shape)}: expected finite numbers [N, K]")
    truth, _ = _labels(truth, np.zeros(len(probabilities), int), probabilities.shape[1])
    areas = [
        metrics.roc_auc_score(truth == label, probabilities[:, label]) for label in np.unique(truth) if (truth != label).any()
    ]
    return float(np.mean(areas)) if areas else None
