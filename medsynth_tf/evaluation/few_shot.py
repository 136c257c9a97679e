"""The few-shot protocol: n images of each class to learn from, several stratified splits, means and deviations."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.records import Record
from medsynth_tf.data.source import RecordKey, Source, assign_splits
from medsynth_tf.evaluation.augmentation import classification_metrics
from medsynth_tf.methods.saving import create

MEASURES = ("accuracy", "auc", "f1", "kappa")
FRACTIONS = (0.6, 0.2, 0.2)


class SplitSource(Source):
    """Some records of another source, in splits of their own.

    Args:
        source: where the records come from.
        keys: which records, each with its split.
    """

    def __init__(self, source: Source, keys: Sequence[RecordKey]):
        self._source, self._keys = source, list(keys)

    def keys(self) -> list[RecordKey]:
        """The chosen records."""
        return list(self._keys)

    def read(self, key: RecordKey) -> Record:
        """One record of the other source."""
        return self._source.read(key)

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """As the other source says."""
        return self._source.optional_names(keys)

    def describe(self) -> dict[str, Any]:
        """The other source's description, with the number of these records."""
        return {**self._source.describe(), "count": len(self._keys)}


def few_shot_split(source: Source, shots: int | None, seed: int = 0, fractions: Sequence[float] = FRACTIONS) -> SplitSource:
    """A split that is stratified by class, of which training keeps `shots` images of each class.

    Patients stay whole: one whose images are of several classes goes with the class of the first. Every class with patients enough has
    one in each split.

    Args:
        source: the records, all with a label.
        shots: n; None keeps all.
        seed: of the split and of the choice; the n images are among those that a larger n chooses.
        fractions: of train, val and test.

    Raises:
        DataError: a record has no label, or a class has fewer than n images to train on.
    """
    patients: dict[str, int] = {}
    groups: dict[int, list[RecordKey]] = defaultdict(list)
    for key in source.keys():
        if key.label is None:
            raise DataError(f"record '{key.id}' has no label; the few-shot protocol draws images by class")
        groups[patients.setdefault(key.patient_id, key.label)].append(key)
    chosen: list[RecordKey] = []
    train: dict[int, list[RecordKey]] = defaultdict(list)
    for label, keys in sorted(groups.items()):
        splits = assign_splits(
            [RecordKey(key.id, key.patient_id) for key in keys], fractions, derive_seed(seed, "few-shot", label)
        )
        for key in keys:
            split = splits[key.patient_id]
            placed = RecordKey(key.id, key.patient_id, split, key.label)
            (train[int(key.label or 0)] if split == "train" else chosen).append(placed)
    for label, keys in sorted(train.items()):
        if shots is not None and len(keys) < shots:
            raise DataError(f"class {label} has {len(keys)} images to train on, fewer than {shots}")
        order = sorted(keys, key=lambda key: derive_seed(seed, "shot", key.id))
        chosen += order[:shots]
    return SplitSource(source, chosen)


def few_shot(
    config: MethodConfig,
    source: Source,
    arms: Mapping[str, Mapping[str, Any]],
    shots: Sequence[int] = (1, 3, 5, 10),
    splits: int = 5,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains each arm on each split with n images of each class, and tests its classifier on the split's test images.

    All that learns (generator, translator, classifier) sees the n-shot training images alone. An arm's runs on a split begin with the
    same seed and see the same images as the other arms'.

    Args:
        config: of a method with the signature `classify`; `training.epochs` times `training.steps_per_epoch` steps are trained
            whatever n is, and batches are cut to the number of images there are.
        source: the records, with labels.
        arms: name → settings that make it, for instance {"mixup": {"augmentation": "mixup"}}.
        shots: the numbers n.
        splits: how many stratified splits, whose seeds are 0, 1, …
        report: called with each run's figures.

    Returns:
        {"runs": one dict a run ("arm", "shots", "split", the measures, "seconds", "images_per_second"), "summary": {n: {arm: {measure:
        {"mean", "std"}}}}}; a measure that is undefined in a run is left out of its mean.

    Raises:
        DataError: as `few_shot_split`.
    """
    runs: list[dict[str, Any]] = []
    for count in shots:
        for split in range(splits):
            records = few_shot_split(source, count, split)
            for arm, overrides in arms.items():
                runs.append({"arm": arm, "shots": count, "split": split, **_run(config.replace(overrides), records, split)})
                if report is not None:
                    report(runs[-1])
    summary = {
        str(count): {
            arm: {
                name: _spread([run[name] for run in runs if run["arm"] == arm and run["shots"] == count]) for name in MEASURES
            }
            for arm in arms
        }
        for count in shots
    }
    return {"runs": runs, "summary": summary}


def _run(config: MethodConfig, source: SplitSource, seed: int) -> dict[str, Any]:
    available = len(source.split("train"))
    batch = min(config.training.batch_size, available)
    config = config.replace({"seed": seed, "training.batch_size": batch, "data.split_fractions": list(FRACTIONS)})
    model = create(config.slug, config)
    model.compile()
    started, seen = time.perf_counter(), 0
    for stage in model.stages(source):
        if stage.begin is not None:
            stage.begin()
        stage.model.fit(
            stage.batches(0),
            epochs=stage.epochs,
            steps_per_epoch=stage.steps_per_epoch,
            callbacks=list(stage.callbacks),
            verbose=0,
        )
        if stage.end is not None:
            stage.end()
        seen = stage.steps * batch
    seconds = time.perf_counter() - started
    classify = model.signatures()["classify"]
    truth, scores = [], []
    with model.averaged_weights():
        for batch_of in model.dataset(source, config, "test", config.seed):
            truth.append(batch_of["label"].numpy())
            scores.append(classify(batch_of["image"])["probabilities"].numpy())
    graded = bool(getattr(config, "graded", False))
    metrics = classification_metrics(np.concatenate(truth), np.concatenate(scores), graded)
    figures = {name: metrics[name] for name in MEASURES}
    return {**figures, "seconds": round(seconds, 2), "images_per_second": round(seen / seconds, 1)}


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "std": None}
    return {"mean": float(np.mean(known)), "std": float(np.std(known, ddof=1)) if len(known) > 1 else 0.0}
