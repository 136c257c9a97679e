"""Transforms against closed forms and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data import transforms


def random_image(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_halving_averages_blocks_of_four(dtype):
    image = random_image(8, 6, 2, dtype=dtype)
    halved = transforms.resize_image(tf.constant(image), (4, 3))
    means = image.astype(float).reshape(4, 2, 3, 2, 2).mean(axis=(1, 3))
    assert halved.dtype == dtype
    np.testing.assert_allclose(halved, means if dtype == "float32" else np.rint(means), atol=1e-3)


def test_volumes_are_averaged_along_all_three_axes():
    volume = random_image(4, 8, 6, 1, dtype="float32")
    halved = transforms.resize_image(tf.constant(volume), (2, 4, 3))
    np.testing.assert_allclose(halved, volume.reshape(2, 2, 4, 2, 3, 2, 1).mean(axis=(1, 3, 5)), rtol=1e-5)


def test_enlarging_keeps_a_linear_ramp_linear():
    ramp = np.tile(np.arange(8, dtype=np.float32)[:, None, None], (1, 8, 1))
    doubled = transforms.resize_image(tf.constant(ramp), (16, 16)).numpy()
    np.testing.assert_allclose(np.diff(doubled[2:-2, 0, 0]), 0.5, atol=1e-5)


def test_sizes_unknown_to_the_graph():
    graph = tf.function(
        lambda image: transforms.resize_image(image, (4, 4)), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)]
    )
    for side in (2, 4, 9):
        assert graph(random_image(side, side, 3)).shape == (4, 4, 3)
    assert graph.get_concrete_function().output_shapes == (4, 4, 3)


def test_size_of_another_rank_is_refused():
    with pytest.raises(ConfigError, match="rank 3"):
        transforms.resize_image(tf.zeros([4, 4, 1]), (2, 2, 2))


def test_label_map_of_the_same_size_is_unchanged():
    mask = np.random.default_rng(0).choice([0, 1, 7, 255], (9, 11)).astype(np.uint8)
    for coverage in (0.01, 0.5, 1.0):
        np.testing.assert_array_equal(transforms.resize_label_map(mask, (9, 11), (0, 1, 7, 255), coverage), mask)


def test_one_pixel_vessel_survives_quartering_only_with_low_coverage():
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 5] = 1  # covers a quarter of the pixels in the second of four columns
    thin = transforms.resize_label_map(mask, (4, 4), (0, 1), 0.25).numpy()
    np.testing.assert_array_equal(thin, np.tile([0, 1, 0, 0], (4, 1)))
    assert transforms.resize_label_map(mask, (4, 4), (0, 1), 0.3).numpy().sum() == 0


def test_paint_order_decides_between_classes_that_cover_enough():
    mask = np.array([[1, 2], [1, 2]], np.uint8)
    assert transforms.resize_label_map(mask, (1, 1), (0, 1, 2), 0.5).numpy() == 2
    assert transforms.resize_label_map(mask, (1, 1), (0, 2, 1), 0.5).numpy() == 1


def test_without_enough_coverage_the_largest_class_wins():
    mask = np.array([[3, 3, 0], [1, 3, 2], [1, 2, 3]], np.uint8)  # 3 covers 4/9
    assert transforms.resize_label_map(mask, (1, 1), (0, 3, 1, 2), 0.5).numpy() == 3


@pytest.mark.parametrize("size", [(5, 7), (31, 40), (13, 3)])
def test_no_label_is_invented(size):
    mask = np.random.default_rng(1).choice([0, 4, 255], (17, 19)).astype(np.uint8)
    resized = transforms.resize_label_map(mask, size, (0, 4, 255), 0.4).numpy()
    assert resized.shape == size
    assert set(np.unique(resized)) <= {0, 4, 255}


def test_label_maps_of_volumes():
    mask = np.zeros((2, 4, 4), np.uint16)
    mask[:, :2] = 300
    np.testing.assert_array_equal(
        transforms.resize_label_map(mask, (1, 2, 2), (0, 300), 0.5), np.array([[[300, 300], [0, 0]]], np.uint16)
    )


def test_unknown_labels_and_coverages_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="other than"):
        transforms.resize_label_map(np.full((2, 2), 9, np.uint8), (1, 1), (0, 1))
    with pytest.raises(ConfigError, match="minimum_coverage"):
        transforms.resize_label_map(np.zeros((2, 2), np.uint8), (1, 1), (0, 1), 0.0)


def test_crop_to_square_keeps_the_field_of_view_and_pads_evenly():
    image = random_image(10, 12, 3)
    mask = np.full((10, 12), 255, np.uint8)
    mask[2:9, 3:6] = 1  # 7 rows, 3 columns
    cropped, cropped_mask = transforms.crop_to_square(tf.constant(image), tf.constant(mask))
    assert cropped.shape == (7, 7, 3)
    np.testing.assert_array_equal(cropped[:, 2:5], image[2:9, 3:6])
    assert np.all(cropped.numpy()[:, :2] == 0)
    np.testing.assert_array_equal(cropped_mask, np.pad(np.ones((7, 3)), ((0, 0), (2, 2)), constant_values=255))


@pytest.mark.parametrize("fill", [0, 255])
def test_crop_to_square_without_a_field_of_view_keeps_the_whole_image(fill):
    image = random_image(4, 6, 1)
    cropped, mask = transforms.crop_to_square(tf.constant(image), tf.fill([4, 6], tf.constant(fill, tf.uint8)))
    np.testing.assert_array_equal(cropped[1:5], image)
    assert mask.shape == (6, 6)


def flipping_record() -> dict[str, tf.Tensor]:
    image = np.zeros((5, 7, 1), np.uint8)
    image[1, 2] = 9
    return {
        "image": tf.constant(image),
        "mask": tf.constant(image[..., 0]),
        "landmarks": tf.constant([[1.0, 2.0], [np.nan, np.nan]]),
        "boxes": tf.constant([[1.0, 2.0, 2.0, 3.0]]),
        "label": tf.constant(3, tf.int64),
    }


def test_flips_move_image_mask_landmarks_and_boxes_together():
    seen = set()
    for seed in range(40):
        record = {k: v.numpy() for k, v in transforms.flip(flipping_record(), tf.constant(seed), vertical=True).items()}
        ((row, column),) = np.argwhere(record["mask"])
        assert record["image"][row, column, 0] == 9
        np.testing.assert_array_equal(record["landmarks"], [[row, column], [np.nan, np.nan]])
        np.testing.assert_array_equal(record["boxes"], [[row, column, row + 1, column + 1]])
        assert record["label"] == 3
        seen.add((row, column))
    assert seen == {(1, 2), (1, 4), (3, 2), (3, 4)}


def test_flips_depend_on_the_seed_alone():
    first = transforms.flip(flipping_record(), tf.constant(5, tf.int64))["mask"]
    tf.random.set_seed(99)
    np.testing.assert_array_equal(first, transforms.flip(flipping_record(), tf.constant(5, tf.int64))["mask"])


def test_unit_range_round_trip():
    values = tf.range(256)
    unit = transforms.to_unit_range(tf.cast(values, tf.uint8))
    assert unit[0] == -1.0
    assert unit[255] == 1.0
    np.testing.assert_array_equal(transforms.from_unit_range(unit), values)
    assert transforms.to_unit_range(tf.constant(65535, tf.uint16)) == 1.0
    with pytest.raises(ConfigError, match="int16"):
        transforms.to_unit_range(tf.constant(0, tf.int16))


def test_intensity_window():
    image = tf.constant([-1000, -150, 50, 250, 3000], tf.int16)
    np.testing.assert_allclose(transforms.normalise_intensity(image, (-150, 250)), [-1, -1, 0, 1, 1], atol=1e-6)
    flat = tf.fill([3], tf.constant(7, tf.int16))
    assert np.all(transforms.normalise_intensity(flat, transforms.percentile_window(flat)).numpy() == -1)


@pytest.mark.parametrize("ranks", [(0.0, 100.0), (0.5, 99.5), (12.5, 50.0)])
def test_percentiles_are_numpys(ranks):
    image = np.random.default_rng(2).normal(size=(7, 11, 1)).astype(np.float32)
    np.testing.assert_allclose(transforms.percentile_window(image, *ranks), np.percentile(image, ranks), rtol=1e-5)
