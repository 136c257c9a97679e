"""Records of several sources as one, for example real and synthetic ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from medsynth_tf.data.records import Record
from medsynth_tf.data.source import RecordKey, Source


class ConcatenatedSource(Source):
    """Chosen records of several sources, one source after the other.

    Ids and patients get their part's number in front, so that equal ones of two parts stay apart.

    Args:
        parts: each source with the keys to take of it.
    """

    def __init__(self, parts: Sequence[tuple[Source, Sequence[RecordKey]]]):
        self.parts = [(source, list(keys)) for source, keys in parts]
        self._original = {
            f"{number}/{key.id}": (source, key) for number, (source, keys) in enumerate(self.parts) for key in keys
        }

    def keys(self) -> list[RecordKey]:
        """The chosen keys, in order."""
        return [
            dataclasses.replace(key, id=f"{number}/{key.id}", patient_id=f"{number}/{key.patient_id}")
            for number, (_, keys) in enumerate(self.parts)
            for key in keys
        ]

    def read(self, key: RecordKey) -> Record:
        """The record, under its new names."""
        source, original = self._original[key.id]
        return {**source.read(original), "id": key.id, "patient_id": key.patient_id}

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """What the records of all parts have."""
        by_source: dict[int, tuple[Source, list[RecordKey]]] = {}
        for key in keys:
            source, original = self._original[key.id]
            by_source.setdefault(id(source), (source, []))[1].append(original)
        return frozenset.intersection(*(source.optional_names(originals) for source, originals in by_source.values()))

    def describe(self) -> dict[str, Any]:
        """Kind, count and the parts."""
        parts = [{**source.describe(), "taken": len(keys)} for source, keys in self.parts]
        return {"kind": "concatenated", "count": len(self._original), "parts": parts}
