"""Ingest: a source of any kind → TFRecord shards by split, a manifest, and a list of the files that could not be used.

Several processes each read, check and write whole shards, so that no pixel passes between processes and memory does not grow
with the number of files. Nothing here imports TensorFlow: a worker is ready in a fraction of a second.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_folder, write_text
from medsynth_tf.data.open import open_source
from medsynth_tf.data.records import SPLITS, encode, shard_names
from medsynth_tf.data.source import RecordKey, Source, assign_splits, fingerprint_of
from medsynth_tf.data.tfrecord_files import Compression, RecordWriter
from medsynth_tf.data.tfrecord_source import MANIFEST

REJECTED = "rejected.csv"


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A record that could not be used: what it was called, its first file (or id), and why, in one line."""

    id: str
    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What an ingest wrote."""

    output: Path
    counts: dict[str, int]
    fingerprint: str
    rejected: tuple[Rejection, ...]


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A worker's task."""

    path: Path
    split: str
    keys: tuple[RecordKey, ...]
    compression: Compression


@dataclasses.dataclass(frozen=True)
class _Written:
    """What a worker says of its shard."""

    split: str
    entries: tuple[tuple[str, str, str], ...]  # id, file, digest
    rejected: tuple[Rejection, ...]


def ingest(
    source: str,
    output: str | Path,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    shards: int = 4,
    compression: Compression = "",
    workers: int | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Reads every record of a source and writes `<split>-00000-of-00004.tfrecord`, `manifest.json` and `rejected.csv`.

    The folder appears under its name when all is written. Records that cannot be read or are not valid are left out and listed
    in `rejected.csv` (id, file, reason). The same source, fractions and seed give the same bytes, whatever `workers` is.

    Args:
        source: a specification for `open_source`.
        output: the folder to write; must not exist.
        fractions: shares of train, val, test for patients that the source puts in no split.
        seed: of the split.
        shards: files per split, at most one a record.
        compression: `GZIP` for `.tfrecord.gz`, which takes longer and has to be unpacked to be shuffled.
        workers: processes; default: one a core that this process may use.
        on_shard: called with (shards done, shards in all) after each.

    Raises:
        DataError: the source cannot be listed, a patient is in two splits, no record at all can be used, or the output exists
            or cannot be written.
    """
    if shards < 1:
        raise DataError(f"shards = {shards}: expected at least 1")
    if Path(output).exists():
        raise DataError(f"{output}: exists already; remove it or choose another output")
    opened = open_source(source)
    keys = opened.keys()
    splits = assign_splits(keys, fractions, seed)
    try:
        with replacing_folder(output) as folder:
            tasks = _tasks(keys, splits, folder, shards, compression)
            written = _run(source, opened, tasks, workers or len(os.sched_getaffinity(0)), on_shard)
            report = _report(Path(output), written)
            _write_manifest(folder / MANIFEST, opened, report, written, {"fractions": list(fractions), "seed": seed})
            write_rejected(folder / REJECTED, report.rejected)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error
    return report


def _tasks(
    keys: Sequence[RecordKey], splits: dict[str, str], folder: Path, shards: int, compression: Compression
) -> list[_Shard]:
    tasks = []
    for split in SPLITS:
        chosen = [key for key in keys if splits[key.patient_id] == split]
        count = min(shards, len(chosen))
        for index, name in enumerate(shard_names(split, count, compression)):
            tasks.append(_Shard(folder / name, split, tuple(chosen[index::count]), compression))
    return tasks


def _run(
    source: str, opened: Source, tasks: Sequence[_Shard], workers: int, on_shard: Callable[[int, int], None] | None
) -> list[_Written]:
    """Writes the shards in processes of their own; results are in the order of the tasks."""
    workers = min(workers, len(tasks))
    # A fork inherits the source as it is, with its files listed.
    method, given = ("fork", opened) if _may_fork() else ("spawn", source)
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context(method), _open_in_worker, (given,)
    ) as pool:
        futures = [pool.submit(_write_shard, task) for task in tasks]
        try:
            for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
                future.result()
                if on_shard is not None:
                    on_shard(done, len(tasks))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _may_fork() -> bool:
    """Forking starts a worker at once, but a process that runs threads, as TensorFlow and gRPC do, may hang after it."""
    return threading.active_count() == 1 and not {"tensorflow", "grpc"} & sys.modules.keys()


_opened: dict[str, Source] = {}  # the source of a worker process


def _open_in_worker(source: str | Source) -> None:
    _opened["source"] = open_source(source) if isinstance(source, str) else source


def _write_shard(task: _Shard) -> _Written:
    source = _opened["source"]
    entries, rejected = [], []
    with RecordWriter(task.path, task.compression) as writer:
        for key in task.keys:
            file = first_file(source, key)
            try:
                serialized = encode(source.read(key), task.split)
                digest = source.digest(key)
            except DataError as error:
                rejected.append(Rejection(key.id, file, str(error)))
                continue
            writer.write(serialized)
            entries.append((key.id, file, digest))
    return _Written(task.split, tuple(entries), tuple(rejected))


def first_file(source: Source, key: RecordKey) -> str:
    """The first file of a record, or its id where the source has no files."""
    files = getattr(source, "files", None)
    return str(files(key)[0]) if files is not None else key.id


def _report(output: Path, written: Sequence[_Written]) -> IngestReport:
    rejected = tuple(rejection for shard in written for rejection in shard.rejected)
    digests = {identity: digest for shard in written for identity, _, digest in shard.entries}
    if not digests:
        raise DataError(f"none of {len(rejected)} records could be used; the first: {rejected[0].reason}")
    counts = {split: sum(len(shard.entries) for shard in written if shard.split == split) for split in SPLITS}
    return IngestReport(output, counts, fingerprint_of(digests), rejected)


def _write_manifest(path: Path, source: Source, report: IngestReport, written: Sequence[_Written], how: dict[str, Any]) -> None:
    records = [{"id": identity, "split": shard.split, "file": file} for shard in written for identity, file, _ in shard.entries]
    manifest = {
        "counts": report.counts,
        "rejected": len(report.rejected),
        "fingerprint": report.fingerprint,
        "source": source.describe(),
        "splits": how,
        "records": sorted(records, key=lambda record: record["id"]),
    }
    write_text(path, json.dumps(manifest, indent=1) + "\n")


def write_rejected(path: Path, rejected: Iterable[Rejection]) -> None:
    """A table of id, file and reason; the header alone if there are none."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "file", "reason"])
        table.writerows([rejection.id, rejection.file, rejection.reason] for rejection in rejected)
