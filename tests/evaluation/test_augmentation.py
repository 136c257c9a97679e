"""The judge of augmentation: on arrays with known answers, and on models of both kinds."""

import json

import numpy as np
import pytest

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.augmentation import classification_metrics, composition_metrics
from medsynth_tf.evaluation.run import evaluate_export, evaluate_model
from tests.methods.augmentation.test_tvps import make

SOURCE = "phantom:vessel_classes?count=20&size=32"


def test_classification_of_known_answers():
    truth = np.array([0, 1, 2, 2])
    found = classification_metrics(truth, np.eye(4)[truth], graded=True)
    assert found == {"accuracy": 1.0, "auc": 1.0, "f1": 1.0, "kappa": 1.0, "images": 4}
    near, far = (
        classification_metrics(truth, np.eye(4)[wrong], graded)["kappa"]
        for wrong, graded in ((np.array([0, 1, 2, 3]), True), (np.array([0, 1, 2, 0]), True))
    )
    assert far < near < 1


def test_compositions_of_known_changes():
    images = np.full([2, 4, 4, 1], 100, np.uint8)
    masks = np.ones([2, 2, 4, 4], np.uint8)
    masks[:, :, :2, :2] = 0
    made = np.repeat(images[None], 2, axis=0)
    made[0, :, :2, :2] = 151  # a fifth of the range, in a quarter of the area, in one of two draws
    found = composition_metrics(images, made, masks, np.array([0, 1]), np.array([0, 0]), np.array([[0, 1], [1, 0]]))
    assert found["accuracy"] == 0.5
    assert found["label_preservation"] == 1.0
    assert found["same_answer"] == 0.5
    assert found["change_inside"] == pytest.approx(0.1)
    assert found["change"] == pytest.approx(0.1 / 4)
    assert found["diversity"] == pytest.approx(0.1)
    assert found["largest_change_outside"] == 0.0
    assert found["hole"] == 0.25
    made[1, 0, 3, 3] = 0
    again = composition_metrics(images, made, masks, np.array([0, 1]), np.array([1, 0]), np.array([[0, 1], [1, 0]]))
    assert again["largest_change_outside"] == pytest.approx(100 / 255)
    assert again["label_preservation"] is None


@pytest.mark.parametrize("augmentation", ["tvps", "cutmix"])
def test_models_and_exports_are_judged_alike(augmentation, tmp_path):
    gates = ["classifier.accuracy >= 0", *(["compositions.largest_change_outside <= 0"] if augmentation == "tvps" else [])]
    model = make(
        augmentation=augmentation, image_size=32, **{"evaluation.gates": gates, "data.split_fractions": [0.5, 0.0, 0.5]}
    )
    model.compile()
    model.save(tmp_path / "run" / "model")
    source = ms.open_source(SOURCE)
    metrics = evaluate_model(tmp_path / "run" / "model", source, tmp_path / "a")
    assert metrics["classifier"]["images"] == 10
    assert ("compositions" in metrics) == (augmentation == "tvps")
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == metrics
    page = (tmp_path / "a" / "index.html").read_text()
    assert "FAILS" not in page
    assert page.count("passes") >= len(gates)
    if augmentation == "tvps":
        assert metrics["compositions"]["largest_change_outside"] == 0.0 < metrics["compositions"]["diversity"]
        assert "compositions.png" in [path.name for path in (tmp_path / "a").iterdir()]
    exported = evaluate_export(ms.export(model, tmp_path / "served"), source, tmp_path / "b")
    assert exported["classifier"] == pytest.approx(metrics["classifier"])
    with pytest.raises(DataError, match="is empty"):
        evaluate_model(tmp_path / "run" / "model", source, tmp_path / "c", split="val")
