import dataclasses

import numpy as np
import pytest

from medsynth_tf.core.errors import ConfigError, DataError, UnknownNameError
from medsynth_tf.data import fundus
from medsynth_tf.data.skimage_source import SkimageSource


@pytest.fixture(scope="module")
def source():
    return SkimageSource("retina", size=96)


def test_splits_share_no_pixel(source):
    covered = {split: np.zeros((384, 384), bool) for split in ("train", "val", "test")}
    keys = source.keys()
    for key in keys:
        row, column = int(key.id.split("-r")[1][:4]), int(key.id.split("-c")[1])
        covered[key.split][row : row + 96, column : column + 96] = True
    assert all(mask.any() for mask in covered.values())
    assert not (covered["train"] & covered["val"]).any()
    assert not (covered["train"] & covered["test"]).any()
    assert not (covered["val"] & covered["test"]).any()


def test_a_region_is_a_patient(source):
    keys = source.keys()
    pairs = {(key.split, key.patient_id) for key in keys}
    assert len(pairs) == 3
    assert len({patient for _, patient in pairs}) == 3


def test_record(source):
    keys = source.keys()
    assert len({key.id for key in keys}) == len(keys) > 200
    record = source.read(keys[17])
    assert record["image"].shape == (96, 96, 3)
    assert record["image"].dtype == np.uint8
    assert record["mask"].dtype == np.uint8
    assert set(np.unique(record["mask"])) <= {0, 1, 2, 255}
    assert (record["mask"] != 255).mean() >= 0.6


def test_records_are_patches_of_one_photograph(source):
    # The next patch is the same picture, 12 pixels further to the right.
    keys = source.keys()
    by_id = {key.id: key for key in keys}
    left, right = (source.read(by_id[f"retina-r0144-c{column:04d}"]) for column in (96, 108))
    np.testing.assert_array_equal(left["image"][:, 12:], right["image"][:, :-12])
    np.testing.assert_array_equal(left["mask"][:, 12:], right["mask"][:, :-12])


def test_the_filter_finds_in_patches_what_the_mask_shows(source):
    scores = []
    for key in source.keys()[::20]:
        record = source.read(key)
        found = fundus.segment_vessels(record["image"], record["mask"] != 255, source.field_of_view_diameter)
        truth = record["mask"] == 1
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert np.mean(scores) > 0.85


def test_stride_sets_the_number_of_patches(source):
    assert len(SkimageSource(size=96, stride=48).keys()) < len(source.keys()) / 8


def test_by_patient_split_keeps_the_regions(source):
    for split, patient in (("train", "retina-left"), ("val", "retina-upper-right"), ("test", "retina-lower-right")):
        assert {key.patient_id for key in source.split(split, (0.8, 0.1, 0.1), seed=3)} == {patient}


def test_fingerprint_follows_the_patches(source):
    prints = [SkimageSource(size=64, stride=stride).fingerprint() for stride in (16, 16, 32)]
    assert prints[0] == prints[1] != prints[2]


def test_bad_specs():
    with pytest.raises(UnknownNameError, match="retina"):
        SkimageSource("retnia")
    with pytest.raises(ConfigError, match="must be >= 32"):
        SkimageSource(size=16)
    with pytest.raises(ConfigError, match="must be >= 1"):
        SkimageSource(stride=0)


def test_unknown_record_is_refused(source):
    absent = dataclasses.replace(source.keys()[0], id="retina-r0001-c0001")
    with pytest.raises(DataError, match="no record 'retina-r0001-c0001'"):
        source.read(absent)
