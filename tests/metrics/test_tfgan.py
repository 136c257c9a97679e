import numpy as np
import pytest
import scipy.linalg

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.tfgan import frechet_distance, kernel_distance


def _samples(seed, count, features, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, features)) @ rng.normal(size=(features, features)) + shift


def _frechet_by_scipy(real, synthetic):
    covariances = [np.cov(sample, rowvar=False) for sample in (real, synthetic)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    difference = real.mean(0) - synthetic.mean(0)
    return difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root)


def _mmd_by_sums(real, synthetic):
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(real), len(synthetic)
    within = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (len(x) * (len(x) - 1)) for x in (real, synthetic)]
    return sum(within) - 2 * kernel(real, synthetic).sum() / (n * m)


def test_frechet_distance_is_scipys():
    real, synthetic = _samples(0, 200, 6), _samples(1, 150, 6, shift=0.7)
    assert frechet_distance(real, synthetic) == pytest.approx(_frechet_by_scipy(real, synthetic), rel=1e-6)


def test_frechet_distance_of_axis_aligned_gaussians_has_a_closed_form():
    # Corners of a box: mean 0, covariance diagonal, both exact.
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    real, synthetic = corners * [1, 2, 3], corners * [2, 2, 5] + [1, 0, -2]
    deviations = np.sqrt(8 / 7) * np.array([[1, 2, 3], [2, 2, 5]])
    expected = 1 + 4 + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(real, synthetic) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_with_fewer_images_than_features():
    real, synthetic = _samples(2, 5, 12), _samples(3, 6, 12)
    assert frechet_distance(real, synthetic) == pytest.approx(_frechet_by_scipy(real, synthetic), rel=1e-3)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-3)


def test_kernel_distance_is_the_polynomial_mmd():
    real, synthetic = _samples(4, 60, 5), _samples(5, 45, 5, shift=0.4)
    assert kernel_distance(real, synthetic) == pytest.approx(_mmd_by_sums(real, synthetic), rel=1e-9)


def test_kernel_distance_is_unbiased():
    values = [kernel_distance(*np.random.default_rng(seed).normal(size=(2, 40, 4))) for seed in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_two_images_are_enough_and_one_is_not():
    pair = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert kernel_distance(pair, pair + 1) == pytest.approx(_mmd_by_sums(pair, pair + 1))
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(DataError, match="at least 2"):
            distance(pair, pair[:1])


def test_features_that_are_not_numbers_are_refused():
    good = _samples(0, 10, 3)
    bad = good.copy()
    bad[7, 1] = np.nan
    with pytest.raises(DataError, match="synthetic images: the features of image 7"):
        frechet_distance(good, bad)
    with pytest.raises(DataError, match="3 columns"):
        kernel_distance(good, good[:, :2])
