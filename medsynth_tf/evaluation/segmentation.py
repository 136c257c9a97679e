"""Judges segmentations of whole volumes against their label maps, volume by volume, and shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.binary_labels import binary_labels
from medsynth_tf.data.records import OUTSIDE
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.overlap import dice, sensitivity_specificity

_SHOWN = 6
_HIT, _MISSED, _WRONG = (90, 200, 120), (250, 200, 60), (230, 70, 60)  # colours over the grey image
_DIRECTIONS = ("across the first axis", "across the second axis", "across the third axis")


def segmentation_metrics(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, Any]:
    """Means and standard deviations over volumes, which may differ in shape.

    Args:
        predicted: of each volume, 0 or 1.
        truth: of each volume, 0 or 1, or 255 where nothing is known and nothing is counted.

    Returns:
        {"dice", "dice_sd", "dice_least", "sensitivity", "sensitivity_sd", "specificity", "specificity_sd", "volumes"}; None where no
        volume has a voxel that the measure is about.
    """
    rows = []
    for found, wanted in zip(predicted, truth):
        known = wanted != OUTSIDE
        a, b = (found[known] > 0)[np.newaxis], (wanted[known] == 1)[np.newaxis]
        rows.append((dice(a, b)[0], *sensitivity_specificity(a, b)[0]))
    values = np.array(rows)
    metrics: dict[str, Any] = {}
    for column, name in enumerate(("dice", "sensitivity", "specificity")):
        defined = values[:, column][np.isfinite(values[:, column])]
        metrics[name] = float(defined.mean()) if len(defined) else None
        metrics[f"{name}_sd"] = float(defined.std(ddof=1)) if len(defined) > 1 else None
    return {**metrics, "dice_least": float(values[:, 0].min()), "volumes": len(values)}


def judge_segmentation(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Dice, sensitivity and specificity of up to `evaluation.samples` volumes of the split, each segmented by the served signature.

    Returns:
        {"segmentation": `segmentation_metrics`, "training": {"annotated_pixels"} where the log of the run says it}.

    Raises:
        DataError: the split is empty, or a record has no mask or, where millimetres count, no spacing.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)[: config.evaluation.samples]
    if not keys:
        raise DataError(f"split '{split}' holds no records to judge on")
    predicted, truth = [], []
    shown: list[list[np.ndarray]] = []
    for key in keys:
        record = source.read(key)
        for name in ("mask", "spacing") if config.space == "mm" else ("mask",):
            if name not in record:
                raise DataError(f"record '{key.id}' has no {name}; it cannot be judged")
        volume = record["image"][..., 0].astype(np.float32)
        spacing = np.asarray(record.get("spacing", np.ones(3)), np.float32)
        request = {"volume": tf.constant(volume[np.newaxis]), "spacing": tf.constant(spacing[np.newaxis])}
        predicted.append(predict(request)["mask"][0].numpy())
        truth.append(binary_labels(record["mask"], config.foreground))
        if len(shown) < _SHOWN:
            shown.append(overlays(volume, truth[-1], predicted[-1], spacing))
    metrics: dict[str, Any] = {
        "segmentation": segmentation_metrics(predicted, truth),
        "extractor": "none: label maps are compared with label maps",
        "warnings": [],
    }
    rows = [Row(name, _array([three[axis] for three in shown])) for axis, name in enumerate(_DIRECTIONS)]
    title = f"{config.slug}: {split} split of {source.describe()['kind']}"
    legend = f"{title}; green found, yellow missed, red wrongly found"
    pictures = {"Slices through the structure": write_sheet(out / "segmentations.png", legend, rows)}
    if log is not None:
        run = read_log(log)
        pixels = run.get("annotated_pixels", np.zeros(0))
        pixels = pixels[np.isfinite(pixels)]
        if len(pixels):
            metrics["training"] = {"annotated_pixels": int(pixels[-1])}
        pictures["Losses during training"] = write_curves(out / "losses.png", run)
    verdicts = check_gates(metrics, config.evaluation.gates, baseline)
    write_report(
        out, title=title, metrics=metrics, pictures=pictures, verdicts=verdicts, config=config.to_dict(), synthetic=False
    )
    return metrics


def overlays(volume: np.ndarray, truth: np.ndarray, predicted: np.ndarray, spacing: np.ndarray) -> list[np.ndarray]:
    """Three slices at right angles through the middle of the structure, uint8 [H, W, 3], pixels square in millimetres.

    Args:
        volume: float32 [D, H, W].
        truth: 0, 1 or 255, [D, H, W].
        predicted: 0 or 1, [D, H, W].
        spacing: millimetres [3].
    """
    low, high = np.percentile(volume, [1, 99])
    grey = np.clip((volume - low) / max(high - low, 1e-6), 0, 1) * 255
    places = np.argwhere(truth == 1)
    middle = np.median(places, axis=0).astype(int) if len(places) else np.array(volume.shape) // 2
    pictures = []
    for axis in range(3):
        image, wanted, found = (np.take(array, middle[axis], axis) for array in (grey, truth, predicted))
        colours = np.repeat(image[..., np.newaxis], 3, -1)
        for colour, where in (
            (_HIT, (wanted == 1) & (found == 1)),
            (_MISSED, (wanted == 1) & (found == 0)),
            (_WRONG, (wanted == 0) & (found == 1)),
        ):
            colours[where] = 0.5 * colours[where] + 0.5 * np.array(colour)
        side, other = (spacing[i] for i in range(3) if i != axis)
        finest = min(side, other)
        size = (max(1, round(image.shape[1] * other / finest)), max(1, round(image.shape[0] * side / finest)))
        pictures.append(np.asarray(Image.fromarray(colours.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)))
    return pictures


def _array(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures that may differ in size, as an array of objects."""
    together = np.empty(len(pictures), object)
    together[:] = list(pictures)
    return together
