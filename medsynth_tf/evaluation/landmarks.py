"""Judges a landmark detector: what it finds within a radius, over all frames, and pictures of found and missed points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, mark_points, write_sheet
from medsynth_tf.metrics.points import match_points, point_scores

FOUND, WRONG, MISSED = (64, 255, 64), (255, 64, 64), (255, 224, 32)
_SHOWN = 8


def overlay(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    """The frame with found points as green, wrong ones as red and missed ones as yellow crosses.

    Args:
        image: uint8 [H, W, 3].
        predicted, truth: [N, 2], (row, column).
        radius: as for `match_points`.

    Returns:
        uint8 [H, W, 3].
    """
    pairs = match_points(predicted, truth, radius)
    right, known = {i for i, _ in pairs}, {j for _, j in pairs}
    missed = [point for index, point in enumerate(truth) if index not in known]
    wrong = [point for index, point in enumerate(predicted) if index not in right]
    found = [point for index, point in enumerate(predicted) if index in right]
    for points, colour in ((missed, MISSED), (wrong, WRONG), (found, FOUND)):
        image = mark_points(image, np.asarray(points, np.float32).reshape(-1, 2), colour)
    return image


def judge_landmarks(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Scores over all frames of the split, and a sheet of up to eight of them.

    Returns:
        {"landmarks": `point_scores`, "warnings"}.

    Raises:
        DataError: the split is empty.
    """
    radius = config.matching_radius
    images: list[np.ndarray] = []
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in method_info(config.slug).model_class().dataset(source, config, split, config.seed):
        answer = predict(batch)
        truth = batch["landmarks"].numpy()
        for i, count in enumerate(np.asarray(answer["count"])):
            pairs.append((np.asarray(answer["points"][i][:count]), truth[i][np.isfinite(truth[i]).all(-1)]))
        if len(images) < config.evaluation.samples:
            images += list(batch["image"].numpy())
    if not pairs:
        raise DataError(f"split '{split}' holds no records to judge on")
    metrics: dict[str, Any] = {
        "landmarks": point_scores(pairs, radius),
        "extractor": "none: points are compared, not images",
        "warnings": [],
    }
    title = f"{config.slug}: {split} split of {source.describe()['kind']}"
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_SHOWN, len(images))).astype(int))
    captions = [f"{len(pairs[i][1])} points, {len(pairs[i][0])} found" for i in chosen]
    rows = [
        Row("Frames", np.stack([images[i] for i in chosen])),
        Row(
            f"Found within {radius:g} px: green; wrong: red; missed: yellow",
            np.stack([overlay(images[i], pairs[i][0], pairs[i][1], radius) for i in chosen]),
            captions,
        ),
    ]
    pictures = {"Frames and points": write_sheet(out / "landmarks.png", title, rows)}
    if log is not None:
        pictures["Losses during training"] = write_curves(out / "losses.png", read_log(log))
    verdicts = check_gates(metrics, config.evaluation.gates, baseline)
    write_report(
        out, title=title, metrics=metrics, pictures=pictures, verdicts=verdicts, config=config.to_dict(), synthetic=False
    )
    return metrics
