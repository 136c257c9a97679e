"""`tfrecord:PATH`: shards of records, as `medsynth ingest` and the TFX pipeline write them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.records import OPTIONAL, SPLITS, Record, RecordSpec, decode, example_summary, parse
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.data.tfrecord_files import RecordWriter, read_frames, read_record

MANIFEST = "manifest.json"
_PATTERNS = ("*.tfrecord", "*.tfrecord.gz", "*-of-*.gz")  # the last is what TFX writes


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a record is, and what is known of it."""

    key: RecordKey
    optional: frozenset[str]
    file: Path
    offset: int
    shard: Path  # what messages name: `file`, or the compressed shard it was unpacked from


class TFRecordSource(Source):
    """Records in TFRecord shards; the split of each is the one stored in it, else what the shard's name says.

    The shards are read through once, when keys are first asked for, to note where each record begins; from then on records
    are read singly, so that shuffling is a true permutation and memory does not grow with the data. Compressed shards are
    unpacked for this, once, into a folder in the system's temporary place (`$TMPDIR`) that lives as long as the source.

    Args:
        path: a folder with `*.tfrecord` or `*.tfrecord.gz` files at any depth, or one such file.

    Raises:
        DataError: there are none.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.is_file():
            shards = {self.path}
        else:
            shards = {shard for pattern in _PATTERNS for shard in self.path.rglob(pattern) if not shard.name.startswith(".")}
        self.shards = sorted(shards)
        if not self.shards:
            raise DataError(f"{self.path}: no such file, or a folder without *.tfrecord and *.tfrecord.gz")

    @functools.cached_property
    def _places(self) -> dict[str, _Place]:
        places: dict[str, _Place] = {}
        for number, shard in enumerate(self.shards):
            file = self._unpacked(shard, number) if shard.suffix == ".gz" else shard
            for offset, serialized in read_frames(file):
                summary = example_summary(serialized, f"{shard}, byte {offset}")
                optional = frozenset(summary.pop("optional"))
                summary["split"] = summary["split"] or _split_of(shard)
                key = RecordKey(**summary)
                if key.id in places:
                    raise DataError(f"{shard}: record '{key.id}' is in {places[key.id].shard} too")
                places[key.id] = _Place(key, optional, file, offset, shard)
        if not places:
            raise DataError(f"{self.path}: {len(self.shards)} shard(s) without a record")
        return places

    @functools.cached_property
    def _unpacked_folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="medsynth-records-")

    def _unpacked(self, shard: Path, number: int) -> Path:
        target = Path(self._unpacked_folder.name) / f"{number:05d}.tfrecord"
        with RecordWriter(target) as writer:
            for _, serialized in read_frames(shard):
                writer.write(serialized)
        return target

    def keys(self) -> list[RecordKey]:
        """See `Source.keys`; sorted by id, since Beam writes records in any order."""
        return [self._places[identity].key for identity in sorted(self._places)]

    def _serialized(self, key: RecordKey) -> bytes:
        place = self._place(key)
        return read_record(place.file, place.offset)

    def _place(self, key: RecordKey) -> _Place:
        if key.id not in self._places:
            raise DataError(f"{self.path}: no record '{key.id}'")
        return self._places[key.id]

    def read(self, key: RecordKey) -> Record:
        """See `Source.read`."""
        return decode(
            self._serialized(key), f"{self._places[key.id].shard if key.id in self._places else self.path}, '{key.id}'"
        )

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """See `Source.optional_names`."""
        return frozenset(OPTIONAL).intersection(*(self._place(key).optional for key in keys))

    def digest(self, key: RecordKey) -> str:
        """sha256 of the serialized record."""
        return hashlib.sha256(self._serialized(key)).hexdigest()

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`; with what the manifest keeps of the source that was ingested, such as the scale of its pictures."""
        own = {"kind": "tfrecord", "path": str(self.path), "shards": len(self.shards), "count": len(self._places)}
        return {**self._origin(), **own}

    def _origin(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            return dict(json.loads(path.read_text())["source"]) if path.is_file() else {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a manifest of an ingest: {error}") from error

    def _loader(self, keys: list[RecordKey], spec: RecordSpec) -> Any:
        """Python only fetches bytes, without holding its lock; they are decoded in the graph."""
        import tensorflow as tf

        def load(position: tf.Tensor) -> dict[str, tf.Tensor]:
            serialized = tf.numpy_function(lambda at: self._serialized(keys[int(at)]), [position], tf.string, stateful=False)
            return parse(tf.ensure_shape(serialized, []), spec)

        return load


def _split_of(shard: Path) -> str | None:
    """`train-00000-of-00004.tfrecord` and TFX's `Split-train/…` name a split; TFX calls validation `eval`."""
    for name in (shard.name.split("-")[0], shard.parent.name.removeprefix("Split-")):
        split = "val" if name == "eval" else name
        if split in SPLITS:
            return split
    return None
