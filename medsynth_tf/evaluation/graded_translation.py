"""Judges photographs made from masks and a grade: are they real, do they show their masks, and do they show their grade?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.agreement import VesselLabels
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.generation import evaluate_generation
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, write_masks_and_images, write_real_and_synthetic, write_sheet
from medsynth_tf.metrics.classification import accuracy, cohen_kappa
from medsynth_tf.metrics.extractors import TextureExtractor, default_extractor
from medsynth_tf.metrics.label_contrast import label_contrast
from medsynth_tf.metrics.sliced_wasserstein import sliced_wasserstein

Predict = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


class GradeJudge:
    """Reads the grade off a photograph: logistic regression on texture and colour statistics, fitted to real photographs alone.

    It knows nothing of the generator. Its accuracy on held-out real photographs is the ceiling that synthetic ones are held against.

    Args:
        images: uint8 [N, H, W, 3], real.
        grades: integers [N].
        count: number of grades.

    Raises:
        DataError: the images are all of one grade.
    """

    def __init__(self, images: np.ndarray, grades: np.ndarray, count: int):
        if len(np.unique(grades)) < 2:
            raise DataError("grades cannot be judged: the training split holds images of one grade only")
        self.count = count
        self._features = TextureExtractor()
        self._classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=1.0))
        self._classifier.fit(self._features(images), grades)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] → float [N, count]; 0 for a grade that it was not shown."""
        probabilities = np.zeros([len(images), self.count])
        probabilities[:, self._classifier.classes_] = self._classifier.predict_proba(self._features(images))
        return probabilities

    def agreement(self, images: np.ndarray, grades: np.ndarray) -> dict[str, float]:
        """Accuracy and quadratic κ of the judged against the given grades."""
        judged = self.probabilities(images).argmax(-1)
        return {"accuracy": accuracy(grades, judged), "kappa": cohen_kappa(grades, judged, self.count, "quadratic")}


def grade_measures(judge: GradeJudge, real: np.ndarray, grades: np.ndarray, by_grade: np.ndarray) -> dict[str, Any]:
    """How well images show the grade that was asked for.

    Args:
        judge: of grades.
        real: uint8 [N, H, W, 3], held-out photographs.
        grades: integers [N], theirs.
        by_grade: uint8 [K, M, H, W, 3]: the same masks asked for at every grade.

    Returns:
        `real` and `synthetic` (accuracy and κ each), `rank_correlation` (Spearman's, of the grade asked for with the mean judged
        grade; None if all are judged alike), and `effect` (deviation of pixels over grades, in [0, 1]).
    """
    asked = np.arange(len(by_grade))
    pixels = by_grade.reshape(-1, *by_grade.shape[2:])
    expected = [float((judge.probabilities(images) @ asked).mean()) for images in by_grade]
    correlation = float(stats.spearmanr(asked, expected)[0]) if np.ptp(expected) > 0 else None
    return {
        "real": judge.agreement(real, grades),
        "synthetic": judge.agreement(pixels, np.repeat(asked, by_grade.shape[1])),
        "rank_correlation": correlation,
        "effect": float((by_grade / 255.0).std(0).mean()),
    }


def judge_graded_translation(
    predict: Predict,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Photographs made from held-out masks at their own and at every grade, against real ones; writes the report.

    Args:
        predict: the served signature: a batch with `label_map`, `seed` and `grade` → `image`, `grade_probabilities`.
        config: the method's.
        source: with the split in it.
        out: folder for the report.
        split: held-out records to judge on.
        log: `log.csv` of the run, for loss curves, or None.
        baseline: metrics of the last blessed model, for gates relative to it.

    Returns:
        What `evaluate_generation` does, and `sliced_wasserstein` by level, `label_contrast` by label (real, synthetic, ratio), `grades`
        (see `grade_measures`, where requests say a grade) and `grade_head.accuracy` of the encoder.

    Raises:
        DataError: the split is empty.
    """
    model_class = method_info(config.slug).model_class()
    limit = config.evaluation.samples
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "label_map", "grade", "synthetic", "head")}
    graded = config.use_agm and config.grade_source == "given"
    by_grade: list[list[np.ndarray]] = [[] for _ in range(config.grades)]
    for batch in model_class.dataset(source, config, split, config.seed).take(-(-limit // config.training.batch_size)):
        made = predict(batch)
        for name in ("image", "label_map", "grade"):
            parts[name].append(batch[name].numpy())
        parts["synthetic"].append(made["image"].numpy())
        parts["head"].append(made["grade_probabilities"].numpy().argmax(-1))
        for grade in range(config.grades if graded else 0):
            asked = {**batch, "grade": tf.fill(tf.shape(batch["grade"]), tf.constant(grade, tf.int64))}
            by_grade[grade].append(predict(asked)["image"].numpy())
    if not parts["image"]:
        raise DataError(f"split '{split}' holds no records to judge on")
    real, maps, grades, synthetic, head = (np.concatenate(parts[name])[:limit] for name in parts)
    known = list(model_class.dataset(source, config, "train", config.seed, training=False).as_numpy_iterator())
    train, train_grades = (np.concatenate([batch[name] for batch in known]) for name in ("image", "grade"))

    described = source.describe()
    vessels = VesselLabels(config.labels.index("vessel")) if "vessel" in config.labels else None
    agreed = maps if vessels is not None else None  # agreement is measured on vessels
    extractor = default_extractor(config.evaluation.extractor_weights)
    metrics = evaluate_generation(real, synthetic, agreed, agreed, train, extractor=extractor, labels=vessels)
    metrics["sliced_wasserstein"] = sliced_wasserstein(real, synthetic)
    metrics["label_contrast"] = {
        name: contrast
        for name in config.channels
        if name in config.labels and (contrast := _contrasts(real, synthetic, maps, config.labels.index(name))) is not None
    }
    metrics["grade_head"] = {"accuracy": accuracy(grades, head)}
    pictures = {
        "Real and synthetic images": write_real_and_synthetic(out / "real_and_synthetic.png", real, synthetic),
        "Label maps and the images made from them": write_masks_and_images(
            out / "masks_and_images.png", maps, synthetic, {name: code for code, name in enumerate(config.labels)}
        ),
    }
    if graded:
        shown = np.stack([np.concatenate(images)[:limit] for images in by_grade])
        metrics["grades"] = grade_measures(GradeJudge(train, train_grades, config.grades), real, grades, shown)
        rows = [Row(f"SYNTHETIC, grade {grade}", images[:8]) for grade, images in enumerate(shown)]
        pictures["The same masks at every grade"] = write_sheet(out / "grades.png", "The same masks at every grade", rows)
    if log is not None:
        pictures["Losses during training"] = write_curves(out / "losses.png", read_log(log))
    write_report(
        out,
        title=f"{config.slug}: {split} split of {described['kind']}",
        metrics=metrics,
        pictures=pictures,
        verdicts=check_gates(metrics, config.evaluation.gates, baseline),
        config=config.to_dict(),
    )
    return metrics


def _contrasts(real: np.ndarray, synthetic: np.ndarray, maps: np.ndarray, label: int) -> dict[str, float] | None:
    """A label's contrast in real and synthetic images and their ratio; None where no image has it."""
    before, after = (label_contrast(images, maps, label) for images in (real, synthetic))
    if before is None or after is None or before == 0:
        return None
    return {"real": before, "synthetic": after, "ratio": after / before}
