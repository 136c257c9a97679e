import json

import numpy as np
import pytest

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.graded_translation import GradeJudge, grade_measures
from medsynth_tf.evaluation.run import evaluate_export, evaluate_model
from medsynth_tf.metrics.label_contrast import label_contrast
from tests.methods.tiny import TINY

SOURCE = "phantom:graded_lesions?count=20&size=32"


def photographs(count, seed):
    """Three grades that differ in redness."""
    rng = np.random.default_rng(seed)
    grades = np.arange(count) % 3
    images = rng.uniform(0, 60, [count, 32, 32, 3]) + 60.0 * grades[:, None, None, None] * np.array([1, 0, 0])
    return images.astype(np.uint8), grades


def test_grades_are_judged_by_real_photographs():
    train, train_grades = photographs(90, 0)
    real, grades = photographs(12, 1)
    probabilities = GradeJudge(train, train_grades, 4).probabilities(real)  # nobody has grade 3
    assert probabilities.shape == (12, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert not probabilities[:, 3].any()
    judge = GradeJudge(train, train_grades, 3)
    by_grade = np.stack([real[grades == grade] for grade in range(3)])
    right = grade_measures(judge, real, grades, by_grade)
    assert right["real"] == {"accuracy": 1.0, "kappa": 1.0}
    assert right["synthetic"] == {"accuracy": 1.0, "kappa": 1.0}
    assert right["rank_correlation"] == 1.0
    wrong = grade_measures(judge, real, grades, by_grade[::-1])
    assert wrong["rank_correlation"] == -1.0
    assert wrong["synthetic"]["accuracy"] == pytest.approx(1 / 3)
    alike = grade_measures(judge, real, grades, by_grade[[1, 1, 1]])
    assert alike["rank_correlation"] is None
    assert alike["effect"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataError, match="one grade only"):
        GradeJudge(train, np.zeros(90, int), 3)


def test_label_contrast_is_the_colour_difference_to_the_ring():
    masks = np.zeros([2, 32, 32], np.uint8)
    masks[0, 10:14, 10:14] = 3
    masks[0, 18:, :] = 255
    images = np.full([2, 32, 32, 3], 100, np.uint8)
    images[0, 10:14, 10:14] = [151, 49, 100]
    assert label_contrast(images, masks, 3) == pytest.approx((51 + 51) / 3 / 255)
    assert label_contrast(images / 255.0, masks, 3) == pytest.approx((51 + 51) / 3 / 255)
    assert label_contrast(images, masks, 2) is None
    with pytest.raises(DataError, match="do not fit"):
        label_contrast(images, masks[:1], 3)


def test_a_saved_model_and_its_export_are_judged_alike(tmp_path):
    config = ms.load_config("dr_gan", overrides={**TINY["dr_gan"][0], "evaluation.gates": ["grades.effect >= 0.0"]})
    model = ms.create("dr_gan", config)
    model.compile()
    model.save(tmp_path / "model")
    version = ms.export(model, tmp_path / "served")
    source = ms.open_source(SOURCE)
    saved = evaluate_model(tmp_path / "model", source, tmp_path / "a")
    exported = evaluate_export(version, source, tmp_path / "b")
    assert saved["images_synthetic"] == 4
    assert set(saved["label_contrast"]) == {"vessel", "optic_disc", "lesion"}
    assert saved["grades"]["real"] == exported["grades"]["real"]
    assert saved["sliced_wasserstein"]["mean"] == pytest.approx(exported["sliced_wasserstein"]["mean"], abs=1e-3)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["grade_head"] == saved["grade_head"]
    assert "passes" in (tmp_path / "b" / "index.html").read_text()
    with pytest.raises(DataError, match="'val' is empty"):
        evaluate_model(tmp_path / "model", source, tmp_path / "c", split="val")
