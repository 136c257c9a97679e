import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.msssim import _pair_of, ms_ssim_diversity, scales_for


def test_equal_images_have_similarity_one():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert ms_ssim_diversity(np.stack([image] * 4)) == pytest.approx(1.0, abs=1e-6)


def test_mean_over_all_pairs_is_tensorflows():
    rng = np.random.default_rng(1)
    base = rng.random((180, 180, 1))
    images = np.clip(base + rng.normal(0, 0.1, (4, 180, 180, 1)), 0, 1).astype(np.float32)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    expected = np.mean([float(tf.image.ssim_multiscale(images[i], images[j], 1.0)) for i, j in pairs])
    assert ms_ssim_diversity(images) == pytest.approx(expected, abs=1e-5)


def test_more_alike_is_higher():
    rng = np.random.default_rng(2)
    base = rng.random((48, 48, 3))
    alike, different = (np.clip(base + rng.normal(0, s, (6, 48, 48, 3)), 0, 1) for s in (0.05, 0.4))
    assert ms_ssim_diversity(alike) > ms_ssim_diversity(different) + 0.1


@pytest.mark.parametrize(
    ("side", "levels", "filter_size"), [(8, 1, 8), (11, 1, 11), (21, 1, 11), (22, 2, 11), (128, 4, 11), (176, 5, 11)]
)
def test_scales_fit_the_image(side, levels, filter_size):
    factors, size = scales_for(side, side + 30)
    assert len(factors) == levels
    assert sum(factors) == pytest.approx(1)
    assert size == filter_size
    images = np.random.default_rng(0).integers(0, 256, (2, side, side + 30, 3)).astype(np.uint8)
    assert np.isfinite(ms_ssim_diversity(images))


def test_pairs_are_numbered_without_gap_or_repeat():
    first, second = _pair_of(np.arange(4950))
    assert (first < second).all()
    assert len(set(zip(first.tolist(), second.tolist()))) == 4950
    assert second.max() == 99


def test_one_image_has_no_diversity():
    with pytest.raises(DataError, match="at least 2"):
        ms_ssim_diversity(np.zeros((1, 32, 32, 3), np.uint8))
