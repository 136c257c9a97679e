"""Judges a detector of panels: average precision by COCO's rules, over-detection, pictures of found and true boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import PALETTE, Row, write_sheet
from medsynth_tf.metrics.detection import average_precision, over_share

_SHOWN = 8


def framed(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] with the frames of boxes [N, 4] in the colours of their classes [N]."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for (top, left, bottom, right), label in zip(np.rint(boxes), labels):
        colour = tuple(int(value) for value in PALETTE[(int(label) + 1) % len(PALETTE)])
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=2)
    return np.asarray(picture)


def judge_detection(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Average precision and the share of over-detection on the split's figures, and a sheet of up to eight of them.

    Returns:
        {"detection": {"map", "map_50", "per_class", "over_share", "figures", "boxes"}, "warnings"}.

    Raises:
        DataError: the split is empty.
    """
    images: list[np.ndarray] = []
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    truth: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in method_info(config.slug).model_class().dataset(source, config, split, config.seed):
        answer = {name: np.asarray(value) for name, value in predict(batch, "evaluate").items()}
        for i, count in enumerate(answer["count"]):
            found.append(tuple(answer[name][i, :count] for name in ("boxes", "scores", "labels")))  # type: ignore[arg-type]
            labels = batch["labels"][i].numpy()
            truth.append((batch["boxes"][i].numpy()[labels >= 0], labels[labels >= 0]))
        if len(images) < config.evaluation.samples:
            images += list(batch["image"].numpy())
    if not truth:
        raise DataError(f"split '{split}' holds no records to judge on")
    measured = {
        **average_precision(found, truth, config.classes),
        "over_share": over_share(found, truth),
        "figures": len(truth),
        "boxes": sum(len(labels) for _, labels in truth),
    }
    metrics: dict[str, Any] = {
        "detection": measured,
        "extractor": "none: boxes are compared, not images",
        "warnings": [],
    }
    title = f"{config.slug}: {split} split of {source.describe()['kind']}"
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_SHOWN, len(images))).astype(int))
    sure = [tuple(part[found[i][1] >= config.detection.confidence] for part in found[i]) for i in chosen]
    rows = [
        Row("True boxes, colours are classes", np.stack([framed(images[i], *truth[i]) for i in chosen])),
        Row(
            f"Found with scores of {config.detection.confidence:g} and more",
            np.stack([framed(images[i], boxes, labels) for i, (boxes, _, labels) in zip(chosen, sure)]),
            [f"{len(truth[i][1])} panels, {len(boxes)} found" for i, (boxes, _, _) in zip(chosen, sure)],
        ),
    ]
    pictures = {"Figures and boxes": write_sheet(out / "boxes.png", title, rows)}
    if log is not None:
        pictures["Losses during training"] = write_curves(out / "losses.png", read_log(log))
    verdicts = check_gates(metrics, config.evaluation.gates, baseline)
    write_report(
        out, title=title, metrics=metrics, pictures=pictures, verdicts=verdicts, config=config.to_dict(), synthetic=False
    )
    return metrics
