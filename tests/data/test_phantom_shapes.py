"""Shapes have the sub-types, sizes and values that claims of them rest on."""

import time

import numpy as np
import pytest
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.phantoms import PhantomSource


def drawn(count, **options):
    source = PhantomSource("shapes", count, **options)
    records = [source.read(key) for key in source.keys()]
    return records, np.stack([r["image"] for r in records])[..., 0], np.stack([r["mask"] for r in records])


def test_sub_types_take_turns_and_are_what_they_are_called():
    records, images, masks = drawn(90)
    assert {r["label"] for r in records} == {0}
    assert images.dtype == np.uint8
    assert images.max() <= round(0.9 * 255)
    np.testing.assert_array_equal(masks.reshape(90, -1).max(1), 1 + np.arange(90) % 3)
    axis = np.arange(32) - 15.5
    for kind, name in enumerate(("disc", "ring", "bar")):
        for mask in masks[kind::3] > 0:
            area = mask.sum()
            centre = np.array(ndimage.center_of_mass(mask)) - 15.5
            assert (np.abs(centre) <= 1.8).all()
            y, x = np.meshgrid(axis - centre[0], axis - centre[1], indexing="ij")
            radius = np.hypot(y, x)[mask]
            if name == "disc":
                assert np.pi * 3.5**2 < area < np.pi * 11.5**2
                assert radius.max() == pytest.approx((area / np.pi) ** 0.5, abs=1.0)
            elif name == "ring":
                assert radius.min() > 4
                assert 5.5 < radius.mean() < 13
            else:
                assert area == pytest.approx(22 * 5, rel=0.15)
                assert radius.max() == pytest.approx((11**2 + 2.5**2) ** 0.5, abs=1.5)


def test_edges_are_the_logistic_of_the_distance():
    _, images, masks = drawn(1, size=256)
    row = images[0, 128].astype(float) / 255  # through the disc's middle, where distances are along the row
    inside = np.flatnonzero(masks[0, 128])
    border = inside[-1] + 0.5
    distance = (np.arange(256) - border) / 8
    near = np.abs(distance) < 1
    near[: inside.mean().astype(int)] = False
    slope = np.polyfit(distance[near], np.log(0.9 / np.maximum(row[near], 1e-3) - 1), 1)[0]
    assert slope == pytest.approx(2.0, rel=0.15)


def test_series_are_repeatable_and_independent_of_their_length():
    _, few, _ = drawn(6, classes=2)
    records, many, masks = drawn(12, classes=2)
    np.testing.assert_array_equal(few, many[:6])
    assert [r["label"] for r in records] == [0, 1] * 6
    assert [int(m.max()) for m in masks] == [1, 1, 2, 2, 3, 3] * 2
    _, others, _ = drawn(6, classes=2, seed=1)
    assert (few != others).any((1, 2)).all()
    with pytest.raises(ConfigError, match="classes"):
        PhantomSource("shapes", 1, classes=3)


def test_drawing_is_quick():
    source = PhantomSource("shapes", 300)
    start = time.process_time()
    for key in source.keys():
        source.read(key)
    assert time.process_time() - start < 1.0
