"""Capsules among spheres: what the claim of multiplanar_unet stands on."""

import time

import numpy as np
import pytest
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.open import open_source
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.records import validate


def read(index=0, **options):
    source = PhantomSource("capsules", index + 1, **options)
    return source.read(source.keys()[index])


def test_records_are_valid_z_scored_and_depend_on_seed_and_index_alone():
    record = read(1)
    validate(record)
    assert record["image"].shape == (48, 48, 48, 1)
    assert abs(record["image"].mean()) < 1e-4
    assert record["image"].std() == pytest.approx(1.0, abs=1e-4)
    assert set(np.unique(record["mask"])) == {0, 1}
    np.testing.assert_array_equal(record["image"], read(1)["image"])
    assert not np.array_equal(record["image"], read(1, seed=1)["image"])
    assert not np.array_equal(record["image"], read(0)["image"])


def test_there_are_nine_capsules_of_the_cards_size():
    counts, shares = [], []
    for index in range(6):
        mask = read(index)["mask"] == 1
        counts.append(ndimage.label(mask)[1])
        shares.append(mask.mean())
    assert np.mean(counts) > 6  # some reach over the border, or touch where no free place was found
    assert max(counts) <= 9
    # π r² 2h + 4/3 π r³ of radius 3.5 to 5 and half-length 6 to 12, nine of them, less what is outside
    assert 0.06 < np.mean(shares) < 0.14


def test_capsules_and_spheres_are_about_as_bright_and_capsules_have_a_dark_rim():
    record = read()
    image, mask = record["image"][..., 0], record["mask"] == 1
    core = ndimage.binary_erosion(mask, iterations=2)
    rim = ndimage.binary_dilation(mask) & ~mask
    bright = ndimage.gaussian_filter(image, 1.5) > 0.5 * image[core].mean()
    assert image[core].mean() > image[~mask].mean() + 1.0
    assert image[rim].mean() < image[~mask].mean() - 0.2
    balls, count = ndimage.label(bright & ~ndimage.binary_dilation(mask, iterations=2))
    sizes = ndimage.sum_labels(balls > 0, balls, range(1, count + 1))
    # a sphere of radius 4 has 268 voxels, and loses some to the blur
    assert (sizes > 100).sum() >= 5, "bright spheres are there too"


def test_anisotropic_volumes_show_the_same_cube():
    record = read(size=32, slices=12)
    assert record["image"].shape == (12, 32, 32, 1)
    np.testing.assert_allclose(record["spacing"] * record["mask"].shape, 48.0)
    assert record["mask"].mean() == pytest.approx(read(size=32)["mask"].mean(), abs=0.06)
    assert open_source("phantom:capsules?count=2&size=16&slices=8").read(
        open_source("phantom:capsules?count=2&size=16").keys()[1]
    )["image"].shape == (8, 16, 16, 1)
    with pytest.raises(ConfigError):
        PhantomSource("capsules", 1, slices=1)


def test_a_volume_is_drawn_quickly():
    started = time.perf_counter()
    read()
    assert time.perf_counter() - started < 10  # a quarter of a second on an idle core
