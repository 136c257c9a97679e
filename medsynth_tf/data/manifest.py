"""Manifests: CSV or JSON tables that name the files of a folder and what is known of them."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.entries import Entry, without_suffix

MANIFEST_NAMES = ("manifest.csv", "manifest.json")
COLUMNS = (
    "image", "mask", "id", "patient_id", "split", "label", "spacing", "modality", "landmarks", "boxes", "box_labels",
)  # fmt: skip


def read_manifest(path: str | Path) -> list[Entry]:
    """The entries of a manifest; paths in it are relative to its folder.

    Raises:
        DataError: it cannot be read, has no `image` column or no rows, a column is misspelt, an id stands twice, or a
            value is not of its kind; the message names the row.
    """
    path = Path(path)
    entries: dict[str, Entry] = {}
    for where, row in _rows(path):
        if not row.get("image"):
            raise DataError(f"{where}: no 'image', the file's path from the manifest's folder")
        image = str(row["image"])
        identity = str(row.get("id") or without_suffix(Path(image)))
        if identity in entries:
            raise DataError(f"{where}: id '{identity}' stands twice")
        mask = (path.parent / str(row["mask"]),) if row.get("mask") else ()
        entries[identity] = Entry(identity, (path.parent / image,), mask, **_known(row, where))
    if not entries:
        raise DataError(f"{path}: no rows")
    return list(entries.values())


def read_labels(path: Path) -> dict[str, dict[str, Any]]:
    """`labels.csv`: what is known of each image (`label`, `patient_id`, `split`, …), by the image's name without suffix.

    Raises:
        DataError: as `read_manifest`.
    """
    labels: dict[str, dict[str, Any]] = {}
    for where, row in _rows(path):
        name = without_suffix(Path(str(row.get("image") or row.get("id") or "")))
        if name in ("", "."):
            raise DataError(f"{where}: no 'image' or 'id'")
        if name in labels:
            raise DataError(f"{where}: '{name}' stands twice")
        labels[name] = _known(row, where)
    return labels


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(what messages call the row, the row) of a CSV file, or of a JSON list (bare, or under "records")."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
            rows = rows.get("records") if isinstance(rows, dict) else rows
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise DataError(f"{path}: expected a list of objects, or {{'records': [...]}}")
            unit, first = "record", 0
        else:
            rows = list(csv.DictReader(text.splitlines(), strict=True))
            unit, first = "line", 2
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table: {error}") from error
    for number, row in enumerate(rows, first):
        where = f"{path}, {unit} {number}"
        for name in row:
            if name is None:
                raise DataError(f"{where}: more cells than columns")
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8)
            if name not in COLUMNS and near:  # other columns are the user's own and are passed over
                raise DataError(f"{where}: unknown column '{name}'; did you mean '{near[0]}'?")
        yield where, row


def _known(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The columns beside the files, as an Entry has them."""
    known: dict[str, Any] = {}
    for name in ("patient_id", "split", "modality"):
        if row.get(name) not in (None, ""):
            known[name] = str(row[name])
    kinds: dict[str, Any] = {"label": _whole, "spacing": _floats, "landmarks": _points, "boxes": _points, "box_labels": _wholes}
    for name, kind in kinds.items():
        value = row.get(name)
        if value in (None, ""):
            continue
        try:
            known[name] = kind(json.loads(value) if isinstance(value, str) else value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: {name} = {value!r}: expected {kind.__doc__}") from error
    return known


def _whole(value: Any) -> int:
    """a whole number"""
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(value)
    return int(value)


def _wholes(value: Any) -> tuple[int, ...]:
    """a list of whole numbers, such as [0, 2]"""
    return tuple(_whole(item) for item in value)


def _floats(value: Any) -> tuple[float, ...]:
    """a list of numbers, such as [0.5, 0.5]"""
    return tuple(float(item) for item in value)


def _points(value: Any) -> tuple[tuple[float, ...], ...]:
    """a list of lists of numbers, such as [[10, 20], [30, 40]]"""
    return tuple(tuple(float("nan") if number is None else float(number) for number in point) for point in value)
