"""Cross-validation: a source whose splits are folds of its patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.records import Record
from medsynth_tf.data.source import RecordKey, Source


class Folds(Source):
    """Fold `fold` of the patients is the split 'test', some of the others 'val', the rest 'train'.

    The order of patients depends on (seed, patient id) alone. Records that name a split already keep it.

    Args:
        source: what to split.
        folds: how many; patients are dealt out in turn, so that their numbers differ by one at most.
        fold: 0 … folds - 1.
        validation_patients: held out of those that are not in the fold.
        seed: another one deals otherwise.

    Raises:
        DataError: nothing would be left to train on.
    """

    def __init__(self, source: Source, folds: int, fold: int, validation_patients: int, seed: int):
        self.source, self.folds, self.fold = source, folds, fold
        keys = source.keys()
        free = sorted(
            {key.patient_id for key in keys if key.split is None},
            key=lambda patient: (derive_seed(seed, "folds", patient), patient),
        )
        self._splits = {patient: "test" if place % folds == fold else "train" for place, patient in enumerate(free)}
        others = [patient for patient in free if self._splits[patient] == "train"]
        if free and len(others) <= validation_patients:
            raise DataError(
                f"{len(free)} patients in {folds} folds leave {len(others)}, of which {validation_patients} are to validate: "
                "none to train on"
            )
        self._splits.update(dict.fromkeys(others[:validation_patients], "val"))

    def keys(self) -> list[RecordKey]:
        """The source's, each with its split."""
        return [
            RecordKey(key.id, key.patient_id, key.split or self._splits[key.patient_id], key.label)
            for key in self.source.keys()
        ]

    def read(self, key: RecordKey) -> Record:
        """As the source."""
        return self.source.read(key)

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """As the source."""
        return self.source.optional_names(keys)

    def describe(self) -> dict[str, Any]:
        """The source's, and which fold."""
        return {**self.source.describe(), "folds": self.folds, "fold": self.fold}
