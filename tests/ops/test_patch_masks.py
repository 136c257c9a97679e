"""Holes by their recipes, and crops around them."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from medsynth_tf.ops.patch_masks import centre_hole, crop_around_hole, square_holes, stroke_holes

SEEDS = tf.range(200, dtype=tf.int64)


def test_squares_have_sides_in_the_range_and_lie_within():
    hole = 1 - square_holes(SEEDS, 40, (0.25, 0.5)).numpy()[..., 0]
    for picture in hole:
        rows, columns = np.nonzero(picture)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert height == width
        assert 10 <= height <= 20
        assert picture.sum() == height * width
    assert len({(np.nonzero(p)[0][0], np.nonzero(p)[1][0]) for p in hole}) > 100
    assert np.allclose(hole.mean(0), hole.mean(0).T, atol=0.15)


def test_a_hole_depends_on_its_own_seed_alone():
    for recipe in (lambda s: square_holes(s, 24, (0.3, 0.5), 2), lambda s: stroke_holes(s, 24, (0.3, 0.5), 0.1, 2)):
        together = recipe(SEEDS[:6])
        np.testing.assert_array_equal(recipe(SEEDS[3:4])[0], together[3])
        assert not np.array_equal(together[0], together[1])


def test_squares_have_half_of_their_area_in_the_retina():
    rows, columns = np.ogrid[:48, :48]
    disc = (rows - 12) ** 2 + (columns - 12) ** 2 < 12**2
    inside = tf.constant(np.broadcast_to(disc, [200, 48, 48]))
    shares = []
    for chosen in (None, inside):
        hole = 1 - square_holes(SEEDS, 48, (0.2, 0.3), inside=chosen).numpy()[..., 0]
        shares.append((hole * disc).sum((1, 2)) / hole.sum((1, 2)))
    assert (shares[0] < 0.5).mean() > 0.5
    assert (shares[1] >= 0.5).mean() > 0.9  # of sixteen places one is nearly always good
    nowhere = square_holes(SEEDS, 48, (0.2, 0.3), inside=tf.zeros([200, 48, 48], tf.bool))
    assert float(tf.reduce_max(nowhere)) == 1.0
    assert float(tf.reduce_min(nowhere)) == 0.0


def test_several_squares_cover_more():
    areas = [float(1 - tf.reduce_mean(square_holes(SEEDS, 40, (0.2, 0.2), count))) for count in (1, 3)]
    assert areas[0] == pytest.approx(0.04)
    assert 2 * areas[0] < areas[1] <= 3 * areas[0]


def test_the_centre_hole_is_the_same_for_all():
    hole = 1 - centre_hole(SEEDS[:3], 20, 0.4).numpy()[..., 0]
    expected = np.zeros([20, 20])
    expected[6:14, 6:14] = 1
    np.testing.assert_array_equal(hole, np.broadcast_to(expected, [3, 20, 20]))


def test_strokes_are_connected_lines_of_the_width():
    hole = 1 - stroke_holes(SEEDS[:50], 64, (0.4, 0.4), 0.1).numpy()[..., 0]
    for picture in hole:
        parts, count = ndimage.label(picture, np.ones([3, 3]))
        edge = set(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])) - {0}
        assert count == 1 or edge == set(range(1, count + 1))  # in one piece, unless it leaves the image and comes back
        assert 2.0 <= ndimage.distance_transform_edt(np.pad(picture, 1)).max() <= 5.0
    assert 6.4 * 10 < hole.sum((1, 2)).mean() < 6.4 * 40  # shorter where they leave the image or bend back
    inside = np.zeros([50, 64, 64], bool)
    inside[:, :, :40] = True
    started = 1 - stroke_holes(SEEDS[:50], 64, (0.1, 0.1), 0.02, inside=tf.constant(inside)).numpy()[..., 0]
    assert (started[:, :, :47].sum((1, 2)) > 0).all()


def test_crops_lie_around_the_hole_and_are_differentiable():
    rows, columns = np.meshgrid(np.arange(20.0), np.arange(20.0), indexing="ij")
    picture = tf.constant(np.stack([rows, columns], -1)[None].repeat(3, 0).astype(np.float32))
    keep = np.ones([3, 20, 20, 1], np.float32)
    keep[0, 8:12, 4:8] = 0  # middle (9.5, 5.5)
    keep[1, 0:2, 18:20] = 0  # in a corner: the crop moves inside
    with tf.GradientTape() as tape:
        tape.watch(picture)
        crop = crop_around_hole(picture, tf.constant(keep), 6)
    assert crop.shape == [3, 6, 6, 2]
    np.testing.assert_array_equal(crop[:, 0, 0], [[7, 3], [0, 14], [7, 7]])
    np.testing.assert_array_equal(tf.reduce_sum(tape.gradient(crop, picture), [1, 2]), np.full([3, 2], 36.0))
