"""Judges a method that sorts images: purity and mutual information where there are labels, and a sheet of each cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.clustering import normalised_mutual_information, purity

_COLUMNS, _ROWS = 8, 16


def judge_categories(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Sorts all images of the split; sheets show the images nearest to each centroid, sixteen clusters a sheet, largest first.

    Returns:
        {"clusters": {"images", "nonempty", "largest", "mean_distance", "purity", "nmi_labels", "named_accuracy"}, "warnings"}; the last
        three are None where records have no labels, and the last where no cluster has a name.

    Raises:
        DataError: the split is empty.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    clusters: list[int] = []
    distances: list[float] = []
    named: list[int] = []
    pictures: list[np.ndarray] = []
    for batch in method_info(config.slug).model_class().dataset(source, config, split, config.seed, training=False):
        answer = predict(batch)
        clusters += np.asarray(answer["cluster"]).tolist()
        distances += np.asarray(answer["distance"]).tolist()
        named += np.asarray(answer["label"]).tolist()
        pictures += [_for_eyes(image) for image in batch["image"].numpy()]
    if not clusters:
        raise DataError(f"split '{split}' holds no records to judge on")
    found, away = np.array(clusters), np.array(distances)
    sizes = np.bincount(found)
    measured: dict[str, Any] = {
        "images": len(found),
        "nonempty": int((sizes > 0).sum()),
        "largest": int(sizes.max()),
        "mean_distance": float(away.mean()),
        **_against_labels(found, np.array(named), keys),
    }
    metrics: dict[str, Any] = {
        "clusters": measured,
        "extractor": "none: clusters are compared, not images",
        "warnings": [] if measured["purity"] is not None else ["records have no labels: purity was not measured"],
    }
    title = f"{config.slug}: {split} split of {source.describe()['kind']}"
    shown = _sheets(out, title, found, away, np.array(pictures), keys)
    if log is not None:
        shown["Losses during training"] = write_curves(out / "losses.png", read_log(log))
    verdicts = check_gates(metrics, config.evaluation.gates, baseline)
    write_report(out, title=title, metrics=metrics, pictures=shown, verdicts=verdicts, config=config.to_dict(), synthetic=False)
    return metrics


def _against_labels(clusters: np.ndarray, named: np.ndarray, keys: list[RecordKey]) -> dict[str, float | None]:
    if any(key.label is None for key in keys):
        return {"purity": None, "nmi_labels": None, "named_accuracy": None}
    labels = np.array([key.label for key in keys])
    return {
        "purity": purity(clusters, labels),
        "nmi_labels": normalised_mutual_information(clusters, labels),
        "named_accuracy": float((named == labels).mean()) if (named >= 0).any() else None,
    }


def _sheets(
    out: Path, title: str, clusters: np.ndarray, distances: np.ndarray, pictures: np.ndarray, keys: list[RecordKey]
) -> dict[str, Path]:
    """Sheets by caption: a row for each cluster that has images."""
    sizes = np.bincount(clusters)
    order = [cluster for cluster in np.argsort(-sizes, kind="stable") if sizes[cluster]]
    sheets = {}
    for number in range(math.ceil(len(order) / _ROWS)):
        rows = []
        for cluster in order[number * _ROWS : (number + 1) * _ROWS]:
            members = np.flatnonzero(clusters == cluster)
            nearest = members[np.argsort(distances[members], kind="stable")][:_COLUMNS]
            captions = [f"label {keys[i].label}" if keys[i].label is not None else keys[i].id[-12:] for i in nearest]
            rows.append(
                Row(f"Cluster {cluster}: {sizes[cluster]} images, nearest to its centroid first", pictures[nearest], captions)
            )
        path = write_sheet(out / f"clusters-{number + 1:02d}.png", title, rows)
        sheets[f"Clusters, sheet {number + 1}"] = path
    return sheets


def _for_eyes(image: np.ndarray) -> np.ndarray:
    """From its smallest to its largest value, uint8."""
    low, width = float(image.min()), max(float(np.ptp(image)), 1e-12)
    return np.rint(255 * (image.astype(np.float64) - low) / width).astype(np.uint8)
