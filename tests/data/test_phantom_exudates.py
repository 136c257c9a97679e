import numpy as np
from scipy import ndimage

from medsynth_tf.data.phantoms import PhantomSource


def test_exudates_are_bright_where_the_map_has_them_and_follow_the_grade():
    source = PhantomSource("exudates", 60, seed=2)
    keys = source.keys()
    areas = {0: [], 1: [], 2: []}
    for key in keys:
        record = source.read(key)
        image, mask = record["image"].astype(float), record["mask"]
        assert image.shape == (48, 48, 3)
        assert set(np.unique(mask)) == {0, 1, 2, 255}
        ring = ndimage.binary_dilation(mask == 2, iterations=3) & (mask == 0)
        assert image[..., 1][mask == 2].mean() > image[..., 1][ring].mean() + 25
        _, parts = ndimage.label(mask == 2, np.ones((3, 3)))
        assert parts <= (2, 5, 10)[key.label]
        areas[key.label].append((mask == 2).sum())
        disc = np.hypot(*(np.mgrid[:48, :48] - 23.5)) <= 23
        np.testing.assert_array_equal(mask != 255, disc)
    assert np.mean(areas[0]) < np.mean(areas[1]) < np.mean(areas[2])


def test_some_bright_spots_are_no_lesions():
    source = PhantomSource("exudates", 40, seed=2)
    found = 0
    for key in source.keys():
        record = source.read(key)
        green, mask = record["image"][..., 1].astype(float), record["mask"]
        local = green - ndimage.median_filter(green, 9)
        away = (mask == 0) & ~ndimage.binary_dilation(mask > 0, iterations=3)
        found += (local[away] > 30).any()
    assert found > 10


def test_the_same_seed_draws_the_same_eye_and_sizes_agree():
    small, large = PhantomSource("exudates", 3), PhantomSource("exudates", 9, size=96)
    for key in small.keys():
        first, second = small.read(key), large.read(key)
        np.testing.assert_array_equal(first["image"], PhantomSource("exudates", 3).read(key)["image"])
        assert abs((first["mask"] == 1).mean() - (second["mask"] == 1).mean()) < 0.01
