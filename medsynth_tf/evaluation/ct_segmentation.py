"""Judges segmenters of CT slices: right on held-out cases, and the same whatever the reconstruction kernel (arXiv:2107.08543)."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.open import open_source
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.evaluation.bland_altman import write_bland_altman
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.segmentation_agreement import CaseDice, bland_altman, one_sided_wilcoxon

_SHOWN = 6
_TRUE, _FOUND = (0, 158, 115), (213, 94, 0)  # outlines
_NOTHING: dict[str, Any] = {"mean": None, "std": None, "cases": 0, "both_empty": 0, "mean_strict": None}
SMOOTH, SHARP = 0, 1


@dataclasses.dataclass(frozen=True)
class Segmented:
    """One slice in its own size: key, HU float32 [H, W], truth and what was found bool [H, W]."""

    key: RecordKey
    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray


def judge_ct_segmentation(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Dice by patient on the split, and agreement by patient of `agreement.pairs`. Without any label, consistency: Dice between what is
    found in up to `evaluation.samples` slices of the split smoothed and sharpened by the augmentation's own kernels.

    Arguments are those of every judge in `evaluation.run`.

    Returns:
        `segmentation` (None of records without masks), `agreement` (with `bias`, `lower`, `upper` of the volumes in pixels, smooth -
        sharp) and `consistency`, each a `CaseDice.summary`; `cases`: the Dice and volumes of each patient; `against_baseline`:
        one-sided p that this model's cases are better than those of `baseline`, which has `cases` of the same patients.

    Raises:
        DataError: the split is empty, or the pairs are none.
    """
    model_class = method_info(config.slug).model_class()
    held_out = model_class.split(source, config, split)
    dataset = model_class.dataset(source, config, split, config.seed, training=False)
    metrics: dict[str, Any] = {"extractor": "none: nothing is generated", "warnings": []}
    pictures: dict[str, Path] = {}
    cases: dict[str, Any] = {}
    shown: list[Segmented] = []
    by_patient: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for one in segmented(predict, dataset, held_out):
        by_patient[one.key.patient_id].append((one.found, one.truth))
        if len(shown) < _SHOWN and (one.truth.any() or one.found.any()):
            shown.append(one)
    if "mask" in source.optional_names(held_out):
        dice = CaseDice.of([_volume(slices) for slices in by_patient.values()])
        metrics["segmentation"] = dice.summary()
        cases["segmentation"] = _by_name(by_patient, dice.filled(0.0))
    else:
        metrics["segmentation"] = dict(_NOTHING)
        metrics["warnings"].append("the records have no masks: Dice with the truth is not computed")
    if shown:
        pictures["Held-out slices: green the truth, orange what is found"] = _sheet(out / "found.png", shown, config)
    agreement, its_cases, its_pictures = _agreement(predict, config, source, split, out)
    metrics["agreement"] = agreement
    cases |= its_cases
    pictures |= its_pictures
    metrics["consistency"] = _consistency(predict, config, dataset)
    if not its_cases:
        metrics["warnings"].append("agreement.pairs is not set: agreement between reconstructions is not computed")
    for name in ("segmentation", "agreement", "consistency"):
        if metrics[name]["both_empty"]:
            metrics["warnings"].append(
                f"{name}: both masks of {metrics[name]['both_empty']} case(s) are empty: in no mean, but 0 in mean_strict"
            )
    metrics["against_baseline"] = _against(cases, (baseline or {}).get("cases", {}))
    metrics["cases"] = cases
    if log is not None:
        pictures["Losses during training"] = write_curves(out / "losses.png", read_log(log))
    write_report(
        out,
        title=f"{config.slug}: {split} split of {source.describe()['kind']}",
        metrics=metrics,
        pictures=pictures,
        verdicts=check_gates(metrics, config.evaluation.gates, baseline),
        config=config.to_dict(),
        synthetic=False,
    )
    return metrics


def segmented(predict: Any, dataset: tf.data.Dataset, keys: Sequence[RecordKey]) -> Iterator[Segmented]:
    """The slices of a data set that goes through the keys in order, with what `serving_default` finds in them."""
    rest = iter(keys)
    for batch in dataset:
        masks = predict(batch)["mask"].numpy() > 0
        columns = (batch["image"].numpy()[..., 0], batch["mask"].numpy() > 0, masks)
        for index, (height, width) in enumerate(batch["size"].numpy()):
            image, truth, found = (column[index, :height, :width] for column in columns)
            yield Segmented(next(rest), image, truth, found)


def pairs_of(keys: Sequence[RecordKey]) -> list[tuple[int, int]]:
    """Positions of (smooth, sharp) slices: the k-th of a patient with label 0 and the k-th with label 1.

    Raises:
        DataError: a label is another, or a patient has more of one than of the other.
    """
    found: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for position, key in enumerate(keys):
        if key.label not in (SMOOTH, SHARP):
            raise DataError(f"pairs: record '{key.id}' has label {key.label}, expected 0 (smooth kernel) or 1 (sharp kernel)")
        found[key.patient_id][key.label].append(position)
    for patient, (smooth, sharp) in found.items():
        if len(smooth) != len(sharp):
            raise DataError(
                f"pairs: patient '{patient}' has {len(smooth)} smooth and {len(sharp)} sharp slices, expected as many"
            )
    return [pair for smooth, sharp in found.values() for pair in zip(smooth, sharp)]


def _agreement(
    predict: Any, config: Any, source: Source, split: str, out: Path
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Path]]:
    """Metrics, cases and pictures of the pairs."""
    if config.agreement.pairs is None:
        return {**_NOTHING, "bias": None, "lower": None, "upper": None}, {}, {}
    if config.agreement.pairs != "split":
        source, split = open_source(config.agreement.pairs), "all"
    model_class = method_info(config.slug).model_class()
    keys = model_class.split(source, config, split)
    slices = list(segmented(predict, model_class.dataset(source, config, split, config.seed, training=False), keys))
    pairs = [(slices[a], slices[b]) for a, b in pairs_of(keys)]
    if not pairs:
        raise DataError(f"agreement.pairs: no pairs of slices in {source.describe()}")
    by_patient: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for smooth, sharp in pairs:
        by_patient[smooth.key.patient_id].append((smooth.found, sharp.found))
    volumes = [_volume(found) for found in by_patient.values()]
    dice = CaseDice.of(volumes)
    smooth_volume, sharp_volume = (np.array([pair[side].sum() for pair in volumes], np.float64) for side in (0, 1))
    plot = bland_altman(smooth_volume, sharp_volume)
    metrics = {**dice.summary(), **{name: plot[name] for name in ("bias", "lower", "upper")}}
    cases = {
        "agreement": _by_name(by_patient, dice.filled(0.0)),
        "volume_smooth": _by_name(by_patient, smooth_volume),
        "volume_sharp": _by_name(by_patient, sharp_volume),
    }
    chosen = pairs[:: max(1, len(pairs) // _SHOWN)][:_SHOWN]
    rows = [
        Row(f"{name} kernel: what is found", _outlined([pair[side] for pair in chosen], config, truth=False))
        for side, name in enumerate(("Smooth", "Sharp"))
    ]
    pictures = {
        "The same slices by two kernels": write_sheet(out / "pairs.png", "Agreement between reconstructions", rows),
        "Volume found, smooth less sharp, against their mean": write_bland_altman(
            out / "bland_altman.png", "Volume found: smooth - sharp", "pixels", plot
        ),
    }
    return metrics, cases, pictures


def _consistency(predict: Any, config: Any, dataset: tf.data.Dataset) -> dict[str, Any]:
    """Agreement by slice between what is found in slices made smoother and sharper."""
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in dataset:
        count = len(batch["size"])
        found = []
        for kernel in (config.agreement.smooth, config.agreement.sharp):
            a, b = (tf.fill([count], tf.constant(value, tf.float32)) for value in kernel)
            made = predict({**batch, "a": a, "b": b}, "augment_with")
            found.append(predict({"image": made["image"]})["mask"].numpy() > 0)
        sizes = batch["size"].numpy()
        pairs += [tuple(masks[i, : sizes[i][0], : sizes[i][1]] for masks in found) for i in range(count)]
        if len(pairs) >= config.evaluation.samples:
            break
    return CaseDice.of(pairs[: config.evaluation.samples]).summary()


def _against(cases: Mapping[str, Mapping[str, float]], before: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """p of the measures of which both have the same patients."""
    shared = [name for name in ("segmentation", "agreement") if name in cases and set(cases[name]) == set(before.get(name, {}))]
    return {
        name: one_sided_wilcoxon(
            {
                "this": np.array(list(cases[name].values())),
                "blessed": np.array([before[name][patient] for patient in cases[name]]),
            },
            "this",
            comparisons=len(shared),
        )["blessed"]
        for name in shared
    }


def _volume(slices: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The slices of a case as one mask on either side, flat: they may differ in size."""
    first, second = zip(*slices)
    return np.concatenate([mask.ravel() for mask in first]), np.concatenate([mask.ravel() for mask in second])


def _by_name(patients: Mapping[str, Any], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(patients, values)}


def _sheet(path: Path, slices: Sequence[Segmented], config: Any) -> Path:
    return write_sheet(path, "Truth and what is found", [Row("Held-out slices", _outlined(slices, config, truth=True))])


def _outlined(slices: Sequence[Segmented], config: Any, truth: bool) -> np.ndarray:
    """Slices in the window with outlines, an array of uint8 pictures [H, W, 3]."""
    low, high = config.window
    pictures = np.empty(len(slices), object)
    for place, one in enumerate(slices):
        grey = np.clip((one.image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        factor = max(1, 256 // max(grey.shape))
        picture = np.kron(np.repeat(grey[..., None], 3, -1), np.ones((factor, factor, 1), np.uint8))
        for mask, colour in ((one.truth, _TRUE), (one.found, _FOUND))[0 if truth else 1 :]:
            large = np.kron(mask, np.ones((factor, factor), bool))
            picture[large & ~ndimage.binary_erosion(large)] = colour
        pictures[place] = picture
    return pictures
