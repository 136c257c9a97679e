"""Batch synthesis on Beam: a table of requests becomes images, manifest shards and dead letters, on any runner.

    python -m serving.batch --requests table.csv --out FOLDER --server localhost:8500 --model retina [beam options]

Each row's image depends on the row alone, is written whole or not at all, and is noted in a journal before it counts. So the same
command after a kill -9 makes what is missing and nothing twice; rows whose text was changed since are made anew.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import os
import sys
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from medsynth_tf.core.card import file_sha256, utc_now
from medsynth_tf.core.errors import DataError, MedSynthError, ServingError
from medsynth_tf.core.files import write_text
from medsynth_tf.core.names import look_up
from serving.manifest import Manifest
from serving.messages import DEFAULT_SIGNATURE, Signature
from serving.predictors import Predictor, SavedModelPredictor, ServerPredictor
from serving.request_table import ID, Row, read_rows, row_inputs, row_seed
from serving.synthesize import SUFFIXES

JOURNAL = "journal"
BAD = "bad"
COLUMNS = ("id", "image", "files", "seed", "model", "version", "sha256")
THAT_DECIDE = ("model", "version", "signature", "output", "seed", "formats")


@dataclasses.dataclass(frozen=True)
class BatchRun:
    """What every worker of a run knows."""

    predictor: Predictor
    folder: str
    signature: Signature
    settings: dict[str, Any]  # of THAT_DECIDE, method, created
    shards: int


@dataclasses.dataclass(frozen=True)
class Made:
    """A row's image that is there: `request` is the row's digest, `files` maps each file to its SHA-256."""

    id: str
    request: str
    seed: int
    files: dict[str, str]


def run(
    requests: Sequence[str],
    predictor: Predictor,
    folder: str | Path,
    *,
    signature: str = DEFAULT_SIGNATURE,
    output: str = "image",
    version: int | None = None,
    seed: int = 0,
    formats: Sequence[str] = ("png",),
    batch_size: int = 8,
    shards: int = 4,
    method: str = "",
    options: PipelineOptions | None = None,
) -> None:
    """Makes an image for each row of the tables `requests`, and waits until that is done.

    `folder` (one that all workers see) then holds `images/<id>.<suffix>`, `manifest-00000-of-00004.csv` …, a line per image, and
    `dead-letter-00000-of-00004.jsonl` …, a line per row that cannot be made, with the reason.

    Args:
        predictor: who computes. signature, output: what of it; default: `image` of the default signature.
        version: of the model; default: the newest, or the one that the run in `folder` began with.
        seed: rows without a seed of their own get one that derives from this and their id.
        formats: of the files: png, dicom, nifti.
        batch_size: rows a request at most. shards: of manifest and dead letters.
        method: the method's slug for the provenance marks; default: the model's name.
        options: of Beam; default: the direct runner.

    Raises:
        DataError: a table cannot be read. ServingError: the model is not there or failed, or `folder` holds another run.
    """
    for kind in formats:
        look_up(SUFFIXES, kind, "image format")
    manifest = Manifest(Path(folder))
    with manifest.locked():
        former = manifest.settings()
        metadata = predictor.metadata(version or (former or {}).get("version"))
        found = metadata.signatures.get(signature)
        if found is None or output not in found.outputs:
            raise ServingError(f"model '{predictor.model}' has no output '{output}' in signature '{signature}'", "NOT_FOUND")
        settings = {
            "model": predictor.model,
            "version": metadata.version,
            "signature": signature,
            "output": output,
            "seed": seed,
            "formats": list(formats),
            "method": method or predictor.model,
            "created": utc_now(),
        }
        if former is None:
            manifest.begin(settings)
        else:
            manifest.require_same(former, settings, THAT_DECIDE)
            settings = former  # `created` too, so that a resumed run writes the bytes that the killed one would have
        predictor.close()
        job = BatchRun(predictor, str(folder), found, settings, shards)
        try:
            with beam.Pipeline(options=options or PipelineOptions([])) as pipeline:
                _build(pipeline, list(requests), job, batch_size)
        except MedSynthError:
            raise
        except Exception as error:  # runners with workers of their own send the error as text, traceback and all
            lines = [line for line in str(error).splitlines() if "Error: " in line] or [f"{type(error).__name__}: {error}"]
            raise ServingError(f"batch synthesis into {folder} failed: {lines[-1].strip()}") from error


def _build(pipeline: beam.Pipeline, requests: list[str], job: BatchRun, batch_size: int) -> None:
    rows = (
        pipeline
        | "Tables" >> beam.Create(requests)
        | "Rows" >> beam.FlatMap(read_rows)
        | "Named" >> beam.Map(lambda row: (row.id, row))
    )
    journal = (
        pipeline
        | "Journals" >> beam.Create([str(path) for path in sorted((Path(job.folder) / JOURNAL).glob("*.jsonl"))])
        | "Journal lines" >> beam.FlatMap(_read_journal)
        | "Spread" >> beam.Reshuffle()
        | "Still whole" >> beam.Filter(_is_whole, job.folder)
        | "Made before" >> beam.Map(lambda made: (made.id, made))
    )
    sorted_out = (
        {"rows": rows, "made": journal}
        | "By id" >> beam.CoGroupByKey()
        | "Sort out" >> beam.FlatMap(_sort_out).with_outputs(BAD, "made", main="todo")
    )
    synthesised = (
        sorted_out.todo
        | "Batches" >> beam.BatchElements(min_batch_size=batch_size, max_batch_size=batch_size)
        | "Synthesise" >> beam.ParDo(_Synthesise(job)).with_outputs(BAD, main="made")
    )
    # each shard is named, so that those which no longer hold anything are written, empty, as well
    every_shard = pipeline | "Shards" >> beam.Create([(shard, None) for shard in range(job.shards)])
    for name, parts, write in (
        ("manifest", (sorted_out.made, synthesised.made), _write_manifest),
        ("dead letters", (sorted_out[BAD], synthesised[BAD]), _write_dead_letters),
    ):
        lines = (
            parts
            | f"All of {name}" >> beam.Flatten()
            | f"Shard of {name}" >> beam.Map(lambda item, shards: (zlib.crc32(item[0].encode()) % shards, item), job.shards)
        )
        _ = (
            (lines, every_shard)
            | f"With empty shards of {name}" >> beam.Flatten()
            | f"Gather {name}" >> beam.GroupByKey()
            | f"Write {name}" >> beam.Map(write, job)
        )


def _sort_out(group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
    """Rows to make; entries of those made before (tagged); rows without a usable id, or with that of another (tagged)."""
    name, parts = group
    rows = sorted(parts["rows"], key=lambda row: (row.origin, row.number))
    if rows and not ID.fullmatch(name):
        allowed = "letters, digits, '.', '_', '-', at most 100, the first a letter or digit"
        yield from (beam.pvalue.TaggedOutput(BAD, _dead_letter(row, f"id {name!r}: expected {allowed}")) for row in rows)
        return
    for row in rows[1:]:
        reason = f"id {name!r} stands in row {rows[0].number} of {rows[0].origin} already"
        yield beam.pvalue.TaggedOutput(BAD, _dead_letter(row, reason))
    for row in rows[:1]:
        digest = row.digest()
        made = next((one for one in parts["made"] if one.request == digest), None)
        if made is not None:
            yield beam.pvalue.TaggedOutput("made", (name, made))
        else:
            yield row


class _Synthesise(beam.DoFn):
    """Batches of rows → (id, Made), and dead letters (tagged)."""

    def __init__(self, job: BatchRun):
        self._job = job
        self._journal = ""

    def setup(self) -> None:
        """Each worker writes a journal of its own: no two ever share a file."""
        folder = Path(self._job.folder) / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = str(folder / f"{uuid.uuid4().hex}.jsonl")

    def teardown(self) -> None:
        """Lets go of the model."""
        self._job.predictor.close()

    def process(self, batch: list[Row]) -> Iterator[Any]:
        """Makes the images of a batch; a row that is refused is found by asking for each alone."""
        job, usable = self._job, []
        for row in batch:
            try:
                seed = row_seed(row, job.settings["seed"])
                usable.append((row, seed, row_inputs(row, job.signature, seed)))
            except DataError as error:
                yield beam.pvalue.TaggedOutput(BAD, _dead_letter(row, str(error)))
        groups: dict[Any, list[Any]] = {}
        for item in usable:  # inputs whose sizes the signature leaves open may differ from row to row
            groups.setdefault(tuple(sorted((name, array.shape) for name, array in item[2].items())), []).append(item)
        for group in groups.values():
            yield from self._make(group)

    def _make(self, group: list[tuple[Row, int, dict[str, np.ndarray]]]) -> Iterator[Any]:
        job = self._job
        settings = job.settings
        stacked = {name: np.stack([inputs[name] for _, _, inputs in group]) for name in job.signature.inputs}
        try:
            images = job.predictor.predict(stacked, settings["signature"], settings["version"], settings["output"])
        except ServingError as error:
            if error.code != "INVALID_ARGUMENT":
                raise
            if len(group) == 1:
                yield beam.pvalue.TaggedOutput(BAD, _dead_letter(group[0][0], str(error)))
                return
            for item in group:
                yield from self._make([item])
            return
        made = [
            Made(row.id, row.digest(), seed, self._write(row.id, seed, image))
            for (row, seed, _), image in zip(group, images[settings["output"]])
        ]
        with open(self._journal, "a") as file:
            file.write("".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in made))
            file.flush()
            os.fsync(file.fileno())
        yield from ((one.id, one) for one in made)

    def _write(self, name: str, seed: int, image: np.ndarray) -> dict[str, str]:
        from medsynth_tf.data.writers import Provenance, write_image

        settings, folder = self._job.settings, Path(self._job.folder)
        provenance = Provenance(
            model=settings["model"],
            version=str(settings["version"]),
            seed=seed,
            method=settings["method"],
            created=settings["created"],
        )
        files = [
            written
            for kind in settings["formats"]
            for written in write_image(folder / "images" / f"{name}{SUFFIXES[kind]}", image, provenance)
        ]
        return {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}


def _read_journal(path: str) -> Iterator[Made]:
    for line in Path(path).read_text().splitlines():
        try:
            yield Made(**json.loads(line))
        except (ValueError, TypeError):  # the line that a kill cut short
            continue


def _is_whole(made: Made, folder: str) -> bool:
    return all(
        (Path(folder) / file).is_file() and file_sha256(Path(folder) / file) == digest for file, digest in made.files.items()
    )


def _dead_letter(row: Row, reason: str) -> tuple[str, dict[str, Any]]:
    return row.id, {"id": row.id, "table": row.origin, "row": row.number, "error": reason, "request": json.loads(row.text())}


def _write_manifest(shard: tuple[int, Iterable[Any]], job: BatchRun) -> None:
    number, items = shard
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, made in sorted((item for item in items if item is not None), key=lambda item: item[0]):
        image = next(iter(made.files))
        row = (image, ";".join(made.files), made.seed, job.settings["model"], job.settings["version"], made.files[image])
        writer.writerow([name, *row])
    write_text(Path(job.folder) / f"manifest-{number:05d}-of-{job.shards:05d}.csv", table.getvalue())


def _write_dead_letters(shard: tuple[int, Iterable[Any]], job: BatchRun) -> None:
    number, items = shard
    letters = sorted((item[1] for item in items if item is not None), key=lambda letter: (letter["table"], letter["row"]))
    path = Path(job.folder) / f"dead-letter-{number:05d}-of-{job.shards:05d}.jsonl"
    write_text(path, "".join(json.dumps(letter) + "\n" for letter in letters))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; options that are not ours go to Beam. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.batch", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--requests", nargs="+", required=True, help="tables of requests: .csv, .tfrecord, .tfrecord.gz")
    parser.add_argument("--out", required=True, help="folder of the images, which all workers see")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", help="address of a model server")
    where.add_argument("--saved_model", help="a numbered version's folder, computed in the workers themselves")
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--model_version", type=int, help="default: the newest, or the one the run began with")
    parser.add_argument("--seed", type=int, default=0, help="for rows that bring none (default: 0)")
    parser.add_argument("--formats", nargs="+", default=["png"], choices=sorted(SUFFIXES), help="of the files (default: png)")
    parser.add_argument("--batch_size", type=int, default=8, help="rows a request at most (default: 8)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a request with its retries (default: 60)")
    parser.add_argument("--shards", type=int, default=4, help="of manifest and dead letters (default: 4)")
    ours, beams = parser.parse_known_args(argv)
    predictor: Predictor = (
        ServerPredictor(ours.model, address=ours.server, timeout=ours.timeout)
        if ours.server
        else SavedModelPredictor(ours.model, path=os.path.abspath(ours.saved_model))
    )
    try:
        run(
            [os.path.abspath(table) for table in ours.requests],
            predictor,
            os.path.abspath(ours.out),
            version=ours.model_version,
            seed=ours.seed,
            formats=ours.formats,
            batch_size=ours.batch_size,
            shards=ours.shards,
            options=PipelineOptions(beams),
        )
    except MedSynthError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    from serving.batch import main as imported_main  # workers unpickle serving.batch, not __main__

    sys.exit(imported_main())
