import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.overlap import dice, precision_recall_f1


def test_by_hand():
    truth = np.array([[[1, 1, 1], [0, 0, 0]]], bool)
    predicted = np.array([[[0, 1, 1], [1, 1, 0]]], bool)
    np.testing.assert_allclose(precision_recall_f1(predicted, truth), [[2 / 4, 2 / 3, 4 / 7]])
    np.testing.assert_allclose(dice(predicted, truth), [4 / 7])


def test_m16_special_cases():
    nothing, something = np.zeros((1, 4), bool), np.array([[1, 0, 0, 0]], bool)
    elsewhere = np.array([[0, 1, 0, 0]], bool)
    np.testing.assert_array_equal(precision_recall_f1(nothing, nothing), [[1, 1, 1]])
    for predicted, truth in ((nothing, something), (something, nothing), (something, elsewhere)):
        np.testing.assert_array_equal(precision_recall_f1(predicted, truth), [[0, 0, 0]])


def test_each_image_has_its_own_scores():
    truth = np.array([[1, 1], [1, 0], [0, 0]], bool)
    predicted = np.array([[1, 1], [0, 1], [0, 0]], bool)
    np.testing.assert_array_equal(dice(predicted, truth), [1, 0, 1])


def test_wrong_arrays_are_refused():
    with pytest.raises(DataError, match="one shape"):
        dice(np.zeros((1, 3), bool), np.zeros((1, 4), bool))
    with pytest.raises(DataError, match="expected bool"):
        dice(np.zeros((1, 3), np.uint8), np.zeros((1, 3), bool))
