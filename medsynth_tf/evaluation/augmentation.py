"""Judges a classifier and the synthesis that extends its training images: right answers, kept labels, what changed and where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.generation import GenerationImages, write_generation_report
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.classification import accuracy, cohen_kappa, macro_auc, macro_f1
from medsynth_tf.metrics.extractors import default_extractor

DRAWS = 4
_SHOWN = 8


def classification_metrics(truth: np.ndarray, probabilities: np.ndarray, graded: bool = False) -> dict[str, Any]:
    """The measures of the TVPS tables, as shares and not in percent.

    Args:
        truth: integers [N].
        probabilities: [N, K].
        graded: weight κ by squared distance of grades.

    Returns:
        {"accuracy", "auc" (macro, one class against the rest; None where no curve is defined), "f1" (macro), "kappa", "images"}.
    """
    classes = probabilities.shape[-1]
    predicted = probabilities.argmax(-1)
    weights: Literal["quadratic"] | None = "quadratic" if graded else None
    return {
        "accuracy": accuracy(truth, predicted),
        "auc": macro_auc(truth, probabilities),
        "f1": macro_f1(truth, predicted, classes),
        "kappa": cohen_kappa(truth, predicted, classes, weights),
        "images": len(truth),
    }


def composition_metrics(
    images: np.ndarray,
    compositions: np.ndarray,
    masks: np.ndarray,
    truth: np.ndarray,
    on_images: np.ndarray,
    on_made: np.ndarray,
) -> dict[str, Any]:
    """What synthesis does to images.

    Args:
        images: uint8 [N, H, W, C].
        compositions: uint8 [D, N, H, W, C], D draws of each.
        masks: [D, N, H, W], 1 where the image should be kept.
        truth: labels [N].
        on_images: labels the classifier gives the images, [N].
        on_made: and the compositions, [D, N].

    Returns:
        {"accuracy" of the classifier on compositions, "label_preservation" (that over its accuracy on the images; None where that is
        0), "same_answer" (share of compositions answered as their image), "change_inside" and "largest_change_outside" the hole and
        "change" over all (of the range 0 … 1), "diversity" (deviation between draws in the holes' union), "hole" (share of the
        area)}.
    """
    change = np.abs(compositions.astype(np.float32) - images.astype(np.float32)).mean(-1) / 255
    kept = masks > 0
    right = float((on_made == truth).mean())
    before = float((on_images == truth).mean())
    touched = ~kept.all(0)
    spread = (compositions.astype(np.float32) / 255).std(0).mean(-1)
    return {
        "accuracy": right,
        "label_preservation": right / before if before else None,
        "same_answer": float((on_made == on_images).mean()),
        "change_inside": float(change[~kept].mean()) if (~kept).any() else 0.0,
        "largest_change_outside": float(change[kept].max()) if kept.any() else 0.0,
        "change": float(change.mean()),
        "diversity": float(spread[touched].mean()) if touched.any() else 0.0,
        "hole": float((~kept).mean()),
    }


def judge_augmentation(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The classifier on held-out images and, where the method synthesises, `DRAWS` compositions of up to `evaluation.samples` of them.

    Returns:
        {"classifier": `classification_metrics`, "compositions": `composition_metrics`, and those of `write_generation_report`}.

    Raises:
        DataError: the split is empty.
    """
    held_out = method_info(config.slug).model_class().dataset(source, config, split, config.seed)
    limit = config.evaluation.samples
    truth, probabilities, images, made, masks, answers = [], [], [], [], [], []
    judged = 0
    for batch in held_out:
        truth.append(batch["label"].numpy())
        probabilities.append(predict(batch, "classify")["probabilities"].numpy())
        if not config.synthesises or judged >= limit:
            continue
        judged += len(truth[-1])
        images.append(batch["image"].numpy())
        drawn = [predict({**batch, "seed": batch["seed"] + draw * 2**40}) for draw in range(DRAWS)]
        made.append(np.stack([one["image"] for one in drawn]))
        masks.append(np.stack([one["mask"] for one in drawn]))
        answers.append(np.stack([predict({"image": one["image"]}, "classify")["label"] for one in drawn]))
    if not truth:
        raise DataError(f"split '{split}' holds no records to judge on")
    labels, scores = np.concatenate(truth), np.concatenate(probabilities)
    metrics: dict[str, Any] = {"classifier": classification_metrics(labels, scores, config.graded)}
    title = f"{config.slug}: {split} split of {source.describe()['kind']}"
    extractor = default_extractor(config.evaluation.extractor_weights)
    shared: dict[str, Any] = {"config": config.to_dict()}
    if not config.synthesises:
        metrics |= {"extractor": "none: a baseline makes no images of its own", "warnings": []}
        pictures = {"Losses during training": write_curves(out / "losses.png", read_log(log))} if log is not None else {}
        verdicts = check_gates(metrics, config.evaluation.gates, baseline)
        write_report(out, title=title, metrics=metrics, pictures=pictures, verdicts=verdicts, **shared)
        return metrics
    real = np.concatenate(images)[:limit]
    compositions, kept, given = (np.concatenate(parts, axis=1)[:, :limit] for parts in (made, masks, answers))
    count = len(real)
    metrics["compositions"] = composition_metrics(real, compositions, kept, labels[:count], scores[:count].argmax(-1), given)
    chosen = np.unique(np.linspace(0, count - 1, min(_SHOWN, count)).astype(int))
    captions = [f"label {label}" for label in labels[chosen]]
    rows = [
        Row("Images", real[chosen], captions),
        Row("Masks: white is kept", (kept[0, chosen] > 0).astype(np.uint8)[..., None] * 255),
    ]
    rows += [
        Row(
            f"SYNTHETIC compositions, draw {draw + 1}",
            compositions[draw, chosen],
            [f"answered {a}" for a in given[draw, chosen]],
        )
        for draw in range(2)
    ]
    return write_generation_report(
        out,
        title,
        GenerationImages(real=real, synthetic=compositions[0]),
        extractor=extractor,
        gates=config.evaluation.gates,
        baseline=baseline,
        log=log,
        more_metrics=metrics,
        more_pictures={"Images, holes and compositions": write_sheet(out / "compositions.png", title, rows)},
        **shared,
    )
