"""The few-shot protocol: stratified splits by patient, nested shots, and runs of two arms."""

import numpy as np
import pytest

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.few_shot import few_shot, few_shot_split
from tests.methods.augmentation.test_tvps import tiny


def test_splits_are_stratified_and_shots_nested():
    source = PhantomSource("vessel_classes", 40, size=16)
    whole = few_shot_split(source, None, seed=1)
    for split, each in (("train", 6), ("val", 2), ("test", 2)):
        labels = [key.label for key in whole.split(split)]
        assert [labels.count(label) for label in range(4)] == [each] * 4
    few, more = (few_shot_split(source, shots, seed=1) for shots in (2, 5))
    chosen = [{key.id for key in part.split("train")} for part in (few, more, whole)]
    assert [len(ids) for ids in chosen] == [8, 20, 24]
    assert chosen[0] < chosen[1] < chosen[2]
    assert few.split("test") == whole.split("test")
    assert {key.id for key in few_shot_split(source, 2, seed=2).split("train")} != chosen[0]
    np.testing.assert_array_equal(few.read(few.keys()[0])["image"], source.read(few.keys()[0])["image"])
    with pytest.raises(DataError, match="fewer than 7"):
        few_shot_split(source, 7)
    with pytest.raises(DataError, match="has no label"):
        few_shot_split(ms.open_source("skimage:retina?size=64"), 1)


def test_patients_stay_whole():
    source = PhantomSource("fundus", 60, size=32)
    split = few_shot_split(source, None)
    homes = {}
    for name in ("train", "val", "test"):
        for key in split.split(name):
            assert homes.setdefault(key.patient_id, name) == name
    assert set(homes.values()) == {"train", "val", "test"}


def test_runs_report_every_arm_and_split():
    config = tiny(**{"training.steps_per_epoch": 2, "training.epochs": 1, "training.batch_size": 8})
    source = PhantomSource("vessel_classes", 24, size=16)
    seen = []
    arms = {"plain": {"augmentation": "none"}, "tvps": {}}
    result = few_shot(config, source, arms, shots=[1], splits=2, report=seen.append)
    assert seen == result["runs"]
    assert [(run["arm"], run["split"]) for run in seen] == [("plain", 0), ("tvps", 0), ("plain", 1), ("tvps", 1)]
    found = result["summary"]["1"]["plain"]["accuracy"]
    accuracies = [run["accuracy"] for run in seen if run["arm"] == "plain"]
    assert found == {"mean": pytest.approx(np.mean(accuracies)), "std": pytest.approx(np.std(accuracies, ddof=1))}
    assert all(run["images_per_second"] > 0 for run in seen)
