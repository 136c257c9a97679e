"""Cross-validation by patient."""

import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.folds import Folds
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.source import RecordKey, Source


class Named(Source):
    """Records of which one names its split."""

    def keys(self):
        return [RecordKey(f"r{i}", f"p{i}", "train" if i == 0 else None) for i in range(7)]

    def read(self, key):
        raise AssertionError("splitting reads nothing")

    def describe(self):
        return {"kind": "named"}


def test_each_patient_is_tested_once_and_never_trained_on_then():
    source = PhantomSource("thorax_ct", 22, size=32, slices=2)
    tested = []
    for fold in range(3):
        folds = Folds(source, 3, fold, 2, seed=1)
        by_split = {name: folds.split(name) for name in ("train", "val", "test")}
        patients = {name: {key.patient_id for key in keys} for name, keys in by_split.items()}
        assert sum(map(len, by_split.values())) == 22
        assert not patients["train"] & patients["test"]
        assert not patients["val"] & (patients["train"] | patients["test"])
        assert len(patients["val"]) == 2
        assert len(patients["test"]) in (3, 4)
        tested += sorted(patients["test"])
        assert folds.describe()["fold"] == fold
    assert len(tested) == len(set(tested)) == 11
    assert Folds(source, 3, 0, 2, seed=2).split("test") != Folds(source, 3, 0, 2, seed=1).split("test")


def test_splits_that_records_name_stay():
    for fold in range(3):
        keys = Folds(Named(), 3, fold, 1, seed=0).keys()
        assert keys[0].split == "train"
        assert sum(key.split == "test" for key in keys) == 2


def test_folds_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(DataError, match="none to train on"):
        Folds(Named(), 2, 0, 3, seed=0)
