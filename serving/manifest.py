"""The record of a synthesis run: what was asked for, and which images are there, whole. Survives being killed at any point."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsynth_tf.core.card import file_sha256
from medsynth_tf.core.errors import ServingError
from medsynth_tf.core.files import write_text

SETTINGS_FILE = "synthesis.json"
JOURNAL_FILE = "manifest.jsonl"
TABLE_FILE = "manifest.csv"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One synthetic image. `files` maps each of its files, the image's first and a mask's last, to its SHA-256; `empty_mask` marks
    one whose mask a model made and left empty."""

    index: int
    name: str
    source_id: str
    seed: int
    model: str
    version: int
    files: Mapping[str, str]
    empty_mask: bool = False

    def row(self) -> dict[str, Any]:
        """Its line in the table; `sha256` is that of `image`."""
        image, *_ = self.files
        return {
            "name": self.name,
            "image": image,
            "mask": next((file for file in self.files if file.startswith("masks/")), ""),
            "empty_mask": int(self.empty_mask),
            "files": ";".join(self.files),
            "source_id": self.source_id,
            "seed": self.seed,
            "model": self.model,
            "version": self.version,
            "sha256": self.files[image],
        }


class Manifest:
    """The manifest in a run's folder: a journal with a line per finished image, and at the end the sorted table."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the kernel lets go when it dies, however it dies.

        Raises:
            ServingError: FAILED_PRECONDITION: another process is writing there.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ServingError(f"another process is synthesising into {self._folder}", "FAILED_PRECONDITION") from error
            yield

    def settings(self) -> dict[str, Any] | None:
        """What the run was started with; None before the first start.

        Raises:
            ServingError: FAILED_PRECONDITION: the file is damaged.
        """
        path = self._folder / SETTINGS_FILE
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ServingError(f"cannot read {path}: {error}", "FAILED_PRECONDITION") from error

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Records what is asked for."""
        write_text(self._folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")

    def require_same(self, former: Mapping[str, Any], settings: Mapping[str, Any], names: Sequence[str]) -> None:
        """Checks that a run goes on as it began.

        Raises:
            ServingError: FAILED_PRECONDITION: one of the settings `names` is another.
        """
        for name in names:
            if former.get(name) != settings[name]:
                raise ServingError(
                    f"{self._folder} holds a run with {name} = {former.get(name)}, asked for is {settings[name]}: "
                    "choose another folder, or the same settings to resume",
                    "FAILED_PRECONDITION",
                )

    def finished(self) -> dict[int, Entry]:
        """The images that are there with the bytes they were written with, by index; the journal keeps only these.

        Temporary files of a killed run are removed.
        """
        for leftover in self._folder.glob("*/.*"):
            leftover.unlink()
        entries: dict[int, Entry] = {}
        path = self._folder / JOURNAL_FILE
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = Entry(**json.loads(line))
                except (ValueError, TypeError):  # the line that a kill cut short
                    continue
                if self._whole(entry):
                    entries[entry.index] = entry
        write_text(path, "".join(_line(entries[index]) for index in sorted(entries)))
        return entries

    def _whole(self, entry: Entry) -> bool:
        return all(
            (self._folder / file).is_file() and file_sha256(self._folder / file) == digest
            for file, digest in entry.files.items()
        )

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        """The journal, open for further entries."""
        with open(self._folder / JOURNAL_FILE, "a") as file:
            yield Journal(file)

    def finish(self, entries: Mapping[int, Entry]) -> None:
        """Writes journal and table anew, in order."""
        ordered = [entries[index] for index in sorted(entries)]
        write_text(self._folder / JOURNAL_FILE, "".join(map(_line, ordered)))
        table = io.StringIO()
        rows = [entry.row() for entry in ordered]
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._folder / TABLE_FILE, table.getvalue())


class Journal:
    """Appends entries so that they outlive the process and the machine."""

    def __init__(self, file: io.TextIOWrapper):
        self._file = file

    def add(self, entries: list[Entry]) -> None:
        """Appends `entries`; they are on the disk when this returns."""
        self._file.write("".join(map(_line, entries)))
        self._file.flush()
        os.fsync(self._file.fileno())


def _line(entry: Entry) -> str:
    values = dataclasses.asdict(entry)
    files = values.pop("files")
    return json.dumps({**values, "files": files}) + "\n"
