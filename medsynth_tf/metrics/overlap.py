"""Agreement of segmentations with the truth, image by image."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.errors import DataError


def precision_recall_f1(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 of each image, in this order.

    An image whose truth and prediction are both empty has (1, 1, 1); one without a true positive otherwise (0, 0, 0).
    The mean of F1 over images differs from the F1 of the means.

    Args:
        predicted: bool [N, …].
        truth: bool [N, …].

    Returns:
        float64 [N, 3].

    Raises:
        DataError: shapes differ, or the arrays are not bool.
    """
    predicted, truth = _checked(predicted, truth)
    axes = tuple(range(1, truth.ndim))
    hits = (predicted & truth).sum(axes).astype(np.float64)
    found, wanted = predicted.sum(axes), truth.sum(axes)
    scores = np.stack([hits / np.maximum(found, 1), hits / np.maximum(wanted, 1), 2 * hits / np.maximum(found + wanted, 1)], -1)
    scores[(found == 0) & (wanted == 0)] = 1.0
    return scores


def dice(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """2 |A ∩ B| / (|A| + |B|) of each image, float64 [N]; for two sets this is F1. 1 where both are empty.

    Args and errors are those of `precision_recall_f1`.
    """
    return precision_recall_f1(predicted, truth)[:, 2]


def pooled_overlap(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice, IoU, precision and recall of all pixels of a set of images together; all 1 where nothing is found and nothing is there.

    Args and errors are those of `precision_recall_f1`.
    """
    predicted, truth = _checked(predicted, truth)
    hits, found, wanted = (float(each.sum()) for each in (predicted & truth, predicted, truth))
    if found == wanted == 0.0:
        return dict.fromkeys(("dice", "iou", "precision", "recall"), 1.0)
    return {
        "dice": 2 * hits / (found + wanted),
        "iou": hits / (found + wanted - hits),
        "precision": hits / found if found else 0.0,
        "recall": hits / wanted if wanted else 0.0,
    }


def sensitivity_specificity(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """TP / (TP + FN) and TN / (TN + FP) of each image, float64 [N, 2]; NaN where there is nothing to find, or nothing else.

    Args and errors are those of `precision_recall_f1`.
    """
    predicted, truth = _checked(predicted, truth)
    axes = tuple(range(1, truth.ndim))
    found = np.stack([(predicted & truth).sum(axes), (~predicted & ~truth).sum(axes)], -1).astype(np.float64)
    wanted = np.stack([truth.sum(axes), (~truth).sum(axes)], -1)
    return np.divide(found, wanted, out=np.full(found.shape, np.nan), where=wanted > 0)


def _checked(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or predicted.ndim < 2:
        raise DataError(f"prediction {list(predicted.shape)} and truth {list(truth.shape)}: expected one shape [N, …]")
    if predicted.dtype != bool or truth.dtype != bool:
        raise DataError(f"prediction {predicted.dtype} and truth {truth.dtype}: expected bool")
    return predicted, truth
