"""The judge of CT segmentation: on slices with known answers, and on a model and its export."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.source import RecordKey
from medsynth_tf.evaluation.bland_altman import write_bland_altman
from medsynth_tf.evaluation.ct_segmentation import judge_ct_segmentation, pairs_of
from medsynth_tf.evaluation.run import evaluate_export, evaluate_model
from medsynth_tf.evaluation.sheets import write_source
from medsynth_tf.metrics.segmentation_agreement import bland_altman
from tests.methods.tiny import TINY

OVERRIDES, SOURCE = TINY["fbpaug"]


class Oracle:
    """Finds the bright half of each slice, and of slices made sharper nothing."""

    def __call__(self, batch, signature="serving_default"):
        if signature == "augment_with":
            return {"image": batch["image"] if float(batch["a"][0]) < 0 else tf.fill(batch["image"].shape, -1000.0)}
        return {"mask": tf.cast(batch["image"][..., 0] > -500, tf.uint8)}


def test_known_answers_give_known_measures(tmp_path):
    config = ms.load_config("fbpaug", overrides={**OVERRIDES, "evaluation.samples": 3, "agreement.pairs": "split"})
    source = ms.open_source("phantom:thorax_ct?count=8&size=32&kernel=pairs&slices=2")
    found = judge_ct_segmentation(Oracle(), config, source, tmp_path, "all", None, None)
    records = [source.read(key) for key in source.keys()]
    bright = [record["image"][..., 0] > -500 for record in records]
    truth = [record["mask"] > 0 for record in records]

    def dice(first, second):
        a, b = np.stack(first), np.stack(second)
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    # two patients of two slices by two kernels
    expected = [dice(bright[i : i + 4], truth[i : i + 4]) for i in (0, 4)]
    assert found["segmentation"]["mean"] == pytest.approx(np.mean(expected))
    assert list(found["cases"]["segmentation"].values()) == pytest.approx(expected)
    pairs = [dice(bright[i : i + 4 : 2], bright[i + 1 : i + 4 : 2]) for i in (0, 4)]
    assert found["agreement"]["mean"] == pytest.approx(np.mean(pairs))
    volumes = [[sum(m.sum() for m in bright[i + side : i + 4 : 2]) for i in (0, 4)] for side in (0, 1)]
    assert found["agreement"]["bias"] == pytest.approx(np.mean(np.subtract(*volumes)))
    assert list(found["cases"]["volume_sharp"].values()) == volumes[1]
    assert found["consistency"]["cases"] == 3
    assert found["consistency"]["mean"] == 0.0
    assert found["against_baseline"] == {}
    page = (tmp_path / "index.html").read_text()
    assert "Not for diagnosis" in page
    assert "SYNTHETIC" not in page
    assert {path.name for path in tmp_path.glob("*.png")} == {"found.png", "pairs.png", "bland_altman.png"}
    better = {"cases": {"segmentation": {name: 0.0 for name in found["cases"]["segmentation"]}, "agreement": {"other": 0.0}}}
    again = judge_ct_segmentation(Oracle(), config, source, tmp_path, "all", None, better)
    assert again["against_baseline"]["segmentation"]["p"] == pytest.approx(0.25)  # two cases, both better
    assert set(again["against_baseline"]) == {"segmentation"}


def test_a_saved_model_and_its_export_are_judged_alike(tmp_path):
    gates = ["segmentation.mean_strict >= 0", "agreement.mean_strict >= 0", "consistency.mean_strict >= 0"]
    config = ms.load_config(
        "fbpaug", overrides={**OVERRIDES, "evaluation.gates": gates, "data.split_fractions": [0.5, 0.0, 0.5]}
    )
    model = ms.create("fbpaug", config)
    model.compile()
    model.save(tmp_path / "model")
    version = ms.export(model, tmp_path / "served")
    source = ms.open_source(SOURCE)
    saved = evaluate_model(tmp_path / "model", source, tmp_path / "a")
    exported = evaluate_export(version, source, tmp_path / "b", baseline=saved)
    for name in ("segmentation", "agreement", "consistency", "cases"):
        assert saved[name] == exported[name]
    assert saved["segmentation"]["cases"] + saved["segmentation"]["both_empty"] == 5
    assert exported["against_baseline"]["agreement"]["p"] == 1.0
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["cases"] == saved["cases"]


def test_pairs_go_by_patient_and_label():
    def keys(*entries):
        return [RecordKey(f"r{i}", patient, None, label) for i, (patient, label) in enumerate(entries)]

    assert pairs_of(keys(("a", 0), ("a", 0), ("b", 1), ("a", 1), ("b", 0), ("a", 1))) == [(0, 3), (1, 5), (4, 2)]
    with pytest.raises(DataError, match="label 2"):
        pairs_of(keys(("a", 2)))
    with pytest.raises(DataError, match="1 smooth and 0 sharp"):
        pairs_of(keys(("a", 0)))


def test_the_plot_shows_every_point(tmp_path):
    first, second = np.array([10.0, 20.0, 30.0]), np.array([12.0, 20.0, 24.0])
    path = write_bland_altman(tmp_path / "plot.png", "Title", "pixels", bland_altman(first, second))
    picture = np.asarray(Image.open(path)).astype(int)
    assert picture.shape == (320, 560, 3)
    blue = (picture[..., 2] - picture[..., 0]) > 60
    columns = np.flatnonzero(blue.any(0))
    assert (np.diff(columns) > 5).sum() == 2  # three marks
    write_bland_altman(tmp_path / "one.png", "Title", "pixels", bland_altman(first[:1], first[:1]))


def test_slices_of_more_than_8_bits_stand_on_a_sheet(tmp_path):
    path = write_source(tmp_path / "sheet.png", ms.open_source("phantom:thorax_ct?count=3&size=32"))
    picture = np.asarray(Image.open(path))
    assert picture[40:120].std() > 30
