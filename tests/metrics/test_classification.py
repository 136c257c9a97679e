import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.classification import accuracy, cohen_kappa, macro_auc, macro_f1

TRUTH = np.array([0, 1, 2, 3, 4, 4, 2, 0])


def quadratic_kappa(truth, predicted, classes):
    observed = np.zeros([classes, classes])
    np.add.at(observed, (truth, predicted), 1)
    expected = np.outer(observed.sum(1), observed.sum(0)) / len(truth)
    weights = (np.arange(classes)[:, None] - np.arange(classes)) ** 2
    return 1 - (weights * observed).sum() / (weights * expected).sum()


def test_kappa():
    predicted = np.array([0, 2, 2, 3, 3, 4, 1, 1])
    assert cohen_kappa(TRUTH, predicted, 5, "quadratic") == pytest.approx(quadratic_kappa(TRUTH, predicted, 5))
    assert cohen_kappa(TRUTH, TRUTH, 5, "quadratic") == 1.0
    assert cohen_kappa(TRUTH, np.full(8, 2), 5, "quadratic") == pytest.approx(0.0)
    assert cohen_kappa(np.zeros(3, int), np.zeros(3, int), 5) == 1.0
    rng = np.random.default_rng(0)
    assert abs(cohen_kappa(rng.integers(5, size=20000), rng.integers(5, size=20000), 5, "quadratic")) < 0.03


def test_f1_and_accuracy_by_hand():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert accuracy(truth, predicted) == 0.75
    assert macro_f1(truth, predicted, 5) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_auc_passes_over_absent_classes():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    assert macro_auc(np.array([0, 0, 1, 1]), probabilities) == pytest.approx((0.75 + 0.75) / 2)
    assert macro_auc(np.zeros(4, int), probabilities) is None


def test_bad_input_is_refused_in_words():
    with pytest.raises(DataError, match="expected one shape"):
        accuracy(TRUTH, TRUTH[:-1])
    with pytest.raises(DataError, match=r"integers 0 … 3"):
        cohen_kappa(TRUTH, TRUTH, 4)
    with pytest.raises(DataError, match="finite"):
        macro_auc(TRUTH, np.full([8, 5], np.nan))
