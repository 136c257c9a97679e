import numpy as np
import pytest

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.open import open_source


def drawn(spec):
    source = open_source(spec)
    return [source.read(key) for key in source.keys()]


def test_lesions_are_blobs_on_black_of_the_sizes_that_the_radii_say():
    records = drawn("phantom:lesion?count=60")
    images = np.stack([record["image"] for record in records])
    masks = np.stack([record["mask"] for record in records])
    assert images.shape == (60, 48, 48, 1)
    assert images.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1, 2}
    areas = (masks > 0).sum((1, 2))
    assert np.pi * 7.5**2 < areas.min() < areas.max() < np.pi * 20**2
    assert images[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() == 0  # corners are black
    inside = np.array([image[mask == 1].mean() for image, mask in zip(images[..., 0], masks)])
    core = np.array([image[mask == 2].mean() for image, mask in zip(images[..., 0], masks)])
    assert abs(inside.mean() / 255 - 0.55) < 0.05  # edges are soft
    assert core.mean() < inside.mean()  # though the rim is soft


def test_image_i_depends_on_the_seed_and_i_alone_and_its_outline_not_on_the_size():
    few, many, other = (drawn(f"phantom:lesion?count={n}&seed={s}") for n, s in ((3, 0), (5, 0), (3, 1)))
    for a, b, c in zip(few, many, other):
        np.testing.assert_array_equal(a["image"], b["image"])
        assert not np.array_equal(a["image"], c["image"])
    large = drawn("phantom:lesion?count=3&size=96")
    for a, b in zip(few, large):
        assert ((a["mask"] > 0) == (b["mask"][::2, ::2] > 0)).mean() > 0.99


def test_classes_differ_in_the_depth_of_the_core_and_patients_keep_theirs():
    records = drawn("phantom:lesion?count=160&classes=2&slices=4")
    assert [record["label"] for record in records[:9]] == [0] * 4 + [1] * 4 + [0]
    assert len({record["patient_id"] for record in records}) == 40
    depth = {0: [], 1: []}
    for record in records:
        image, mask = record["image"][..., 0].astype(float), record["mask"]
        if (mask == 2).sum() > 20:
            depth[record["label"]].append(image[mask == 1].mean() - image[mask == 2].mean())
    assert np.mean(depth[1]) > np.mean(depth[0]) + 25
    assert max(np.mean(depth[0]), 0) < 20
    areas = np.array([(record["mask"] > 0).sum() for record in records]).reshape(40, 4)
    assert (areas.max(1) / areas.min(1)).max() < 2.3
    assert {record["label"] for record in drawn("phantom:lesion?count=4")} == {0}


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="classes = 3: must be <= 2"):
        open_source("phantom:lesion?count=4&classes=3")
