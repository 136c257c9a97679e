"""Brain slices: tissues are where they should be, and ventricles say the class, though not always."""

import time

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.phantoms import PhantomSource


def drawn(count, **options):
    source = PhantomSource("brain_slices", count, **options)
    records = [source.read(key) for key in source.keys()]
    labels = np.array([r["label"] for r in records])
    return labels, np.stack([r["image"] for r in records])[..., 0], np.stack([r["mask"] for r in records])


def ventricles(mask):
    """Area of the fluid that is surrounded by brain, as a share of the brain's."""
    brain = mask >= 2
    fluid = mask == 2
    middle = np.zeros_like(fluid)
    height, width = mask.shape
    middle[int(0.25 * height) : int(0.75 * height), int(0.3 * width) : int(0.7 * width)] = True
    return (fluid & middle).sum() / brain.sum()


def test_patients_have_larger_ventricles_and_the_classes_overlap():
    labels, _, masks = drawn(200)
    assert labels.mean() == 0.5
    areas = np.array([ventricles(mask) for mask in masks])
    assert areas[labels == 1].mean() > 1.5 * areas[labels == 0].mean()
    assert 0.9 < roc_auc_score(labels, areas) < 1.0
    fluid = (masks == 2).sum((1, 2)) / (masks > 0).sum((1, 2))
    assert fluid[labels == 1].mean() > 1.3 * fluid[labels == 0].mean(), "sulci are wider too"


@pytest.mark.parametrize("masked", [True, False])
def test_tissues_have_their_grey_values_and_places(masked):
    _, images, masks = drawn(20, size=128, masked=masked)
    means = [images[ndimage.binary_erosion(masks == code, np.ones((1, 3, 3)))].mean() for code in (2, 3, 4)]
    assert means[0] < 70
    assert 110 < means[1] < 150
    assert 175 < means[2] < 210
    present = set(np.unique(masks))
    assert present == ({0, 2, 3, 4} if masked else {0, 1, 2, 3, 4})
    if masked:
        outside = ndimage.binary_dilation(masks > 0, np.ones((1, 5, 5)))
        assert not images[~outside].any(), "all but the brain is black"
    for mask in masks:
        centre = np.array(ndimage.center_of_mass(mask > 0))
        assert (np.abs(centre - 63.5) < 8).all()
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()


def test_any_size_shows_the_same_head():
    _, large, masks = drawn(4, size=208, width=176)
    assert large.shape == (4, 208, 176)
    _, _, square = drawn(4, size=208)
    np.testing.assert_array_equal(masks, square[:, :, 16:-16])
    _, _, small = drawn(4, size=52, width=44)
    for a, b in zip(masks, small):
        assert ((a > 0).mean() - (b > 0).mean()) == pytest.approx(0, abs=0.01)


def test_series_are_repeatable_and_shares_of_patients_are_kept():
    labels, images, _ = drawn(40, patients=0.25, size=16)
    assert labels.sum() == 10
    _, few, _ = drawn(5, patients=0.25, size=16)
    np.testing.assert_array_equal(few, images[:5])
    assert (drawn(5, patients=0.25, size=16, seed=1)[1] != few).any((1, 2)).all()
    with pytest.raises(ConfigError, match="patients"):
        PhantomSource("brain_slices", 1, patients=1.5)


def test_drawing_is_quick():
    source = PhantomSource("brain_slices", 100, size=64)
    start = time.process_time()
    for key in source.keys():
        source.read(key)
    assert time.process_time() - start < 1.5
