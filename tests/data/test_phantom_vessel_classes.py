"""The phantom whose class is the vessels' tortuosity and width."""

import time

import numpy as np

from medsynth_tf.data.phantoms import PhantomSource, open_phantom


def test_records_are_seeded_small_and_quick():
    source = open_phantom("vessel_classes", {"count": "8", "size": "32", "seed": "3"})
    record = source.read(source.keys()[5])
    assert record["image"].shape == (32, 32, 1)
    assert record["image"].dtype == np.uint8
    assert record["label"] == source.keys()[5].label == 1
    assert set(np.unique(record["mask"])) == {0, 1, 255}
    assert (record["mask"] != 255).sum() == np.sum(np.hypot(*np.ogrid[-15.5:16, -15.5:16]) <= 15)
    np.testing.assert_array_equal(record["image"], PhantomSource("vessel_classes", 50, seed=3).read(source.keys()[5])["image"])
    other = PhantomSource("vessel_classes", 8, seed=4).read(source.keys()[5])
    assert np.abs(record["image"].astype(int) - other["image"]).mean() > 5
    started = time.process_time()
    for key in PhantomSource("vessel_classes", 100).keys()[:100]:
        PhantomSource("vessel_classes", 100).read(key)
    assert time.process_time() - started < 2


def test_vessels_are_brighter_and_wide_classes_wider():
    source = PhantomSource("vessel_classes", 200)
    areas = {label: [] for label in range(4)}
    for record in map(source.read, source.keys()):
        image, mask = record["image"][..., 0].astype(float), record["mask"]
        assert image[mask == 1].mean() > image[mask == 0].mean() + 15
        areas[record["label"]].append((mask == 1).sum())
    means = {label: np.mean(values) for label, values in areas.items()}
    assert min(means[1], means[3]) > 1.3 * max(means[0], means[2])


def test_larger_images_show_the_same_thing():
    small, large = (PhantomSource("vessel_classes", 4, size=size).read for size in (32, 96))
    key = PhantomSource("vessel_classes", 4).keys()[2]
    a, b = (read(key)["mask"] == 1 for read in (small, large))
    shrunk = b.reshape(32, 3, 32, 3).mean((1, 3)) > 0.5
    assert (a == shrunk).mean() > 0.93
