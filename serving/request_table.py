"""Tables of requests (CSV, TFRecord): rows read, checked, and turned into the inputs of a signature."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from serving.label_maps import fit_label_map
from serving.messages import Signature, TensorSpec

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # a file is named after it
LABEL_MAP, MASK, SEED = "label_map", "mask", "seed"
RECORD_SUFFIXES = (".tfrecord", ".tfrecord.gz")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row as it stands in the table `origin`: text (CSV), or numbers, bytes and arrays (TFRecord), by column."""

    origin: str
    number: int
    cells: Mapping[str, Any]

    @property
    def id(self) -> str:
        """What the row is called, as it stands there; "" where it has no name."""
        value = self.cells.get("id", "")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def digest(self) -> str:
        """SHA-256 of the cells: another once anything in the row is changed."""
        found = hashlib.sha256()
        for name in sorted(self.cells):
            value = self.cells[name]
            shape = value.shape if isinstance(value, np.ndarray) else ()
            content = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            found.update(f"{name}\n{type(value).__name__}\n{shape}\n{len(content)}\n".encode() + content)
        return found.hexdigest()

    def text(self) -> str:
        """One JSON object of the cells, arrays by type and shape; for the dead-letter file."""
        return json.dumps({name: _shown(value) for name, value in self.cells.items()})


def read_rows(path: str) -> Iterator[Row]:
    """The rows of a table; by its suffix CSV (with a header) or TFRecord of tf.Examples.

    Raises:
        DataError: the file cannot be read or is of another kind.
    """
    if path.endswith(RECORD_SUFFIXES):
        yield from _record_rows(path)
    elif path.endswith(".csv"):
        yield from _csv_rows(path)
    else:
        raise DataError(f"request table {path}: expected .csv, {' or '.join(RECORD_SUFFIXES)}")


def _csv_rows(path: str) -> Iterator[Row]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval=None)
            if "id" not in (reader.fieldnames or ()):
                raise DataError(f"request table {path} has no column 'id'; its columns are {reader.fieldnames}")
            for number, cells in enumerate(reader):
                yield Row(path, number, {name: value for name, value in cells.items() if value not in (None, "")})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read request table {path}: {error}") from error


def _record_rows(path: str) -> Iterator[Row]:
    import tensorflow as tf

    records = tf.data.TFRecordDataset(path, compression_type="GZIP" if path.endswith(".gz") else "")
    try:
        for number, record in enumerate(records.as_numpy_iterator()):
            yield Row(path, number, _cells(tf.train.Example.FromString(record)))
    except tf.errors.OpError as error:
        raise DataError(f"cannot read request table {path}: {error.message}") from error
    except Exception as error:  # protobuf's DecodeError has no public base class
        if type(error).__name__ != "DecodeError":
            raise
        raise DataError(f"request table {path}: a record is no tf.Example") from error


def _cells(example: Any) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        features[name] = values[0] if len(values) == 1 else np.array(values)
    cells: dict[str, Any] = {}
    for name, value in features.items():
        base, _, part = name.partition("/")
        if part in ("shape", "dtype") and base in features:
            continue
        if f"{name}/shape" in features and f"{name}/dtype" in features:  # arrays as records have them
            dtype = np.dtype(features[f"{name}/dtype"].decode()).newbyteorder("<")
            cells[name] = np.frombuffer(value, dtype).reshape(features[f"{name}/shape"])
        else:
            cells[name] = value
    return cells


def row_seed(row: Row, seed: int) -> int:
    """The row's own `seed`, or one that derives from `seed` and the row's id alone.

    Raises:
        DataError: it is no integer in [0, 2^63).
    """
    if SEED not in row.cells:
        return derive_seed(seed, "batch", row.id)
    number = _scalar(row.cells[SEED], "int64", SEED)
    if number < 0:
        raise DataError(f"seed {number} is negative")
    return int(number)


def row_inputs(row: Row, signature: Signature, seed: int) -> dict[str, np.ndarray]:
    """What `signature` takes, for one row: an array per input, without the batch axis.

    A cell of an input with axes beyond the batch's is an array, or the path of a .npy or image file beside the table. A label map
    of another size than the model's is fitted to it.

    Raises:
        DataError: a cell is missing, unreadable, or does not fit.
    """
    inputs = {}
    for name, spec in signature.inputs.items():
        if name == SEED:
            inputs[name] = np.array(seed, np.int64)
            continue
        column = MASK if name == LABEL_MAP and name not in row.cells else name
        if column not in row.cells:
            raise DataError(f"no value for input '{name}'")
        if spec.shape is None or len(spec.shape) > 1:
            inputs[name] = _array(row, column, name, spec)
        else:
            inputs[name] = _scalar(row.cells[column], spec.dtype, column)
    return inputs


def _array(row: Row, column: str, name: str, spec: TensorSpec) -> np.ndarray:
    cell = row.cells[column]
    array = cell if isinstance(cell, np.ndarray) else _read_array(Path(row.origin).parent / str(_text(cell)))
    wanted = None if spec.shape is None else spec.shape[1:]
    if name == LABEL_MAP and array.ndim == 2 and wanted is not None and len(wanted) == 2 and array.shape != wanted:
        height, width = (given if size is None else size for size, given in zip(wanted, array.shape))
        array = fit_label_map(array, height, width)
    if array.dtype != np.dtype(spec.dtype):
        raise DataError(f"{column} is {array.dtype}, input '{name}' takes {spec.dtype}")
    if wanted is not None and (
        len(wanted) != array.ndim or any(size not in (None, given) for size, given in zip(wanted, array.shape))
    ):
        raise DataError(f"{column} has shape {list(array.shape)}, input '{name}' takes {list(wanted)}")
    return array


def _read_array(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"cannot read {path}: {reason}") from error


def _scalar(cell: Any, dtype: str, column: str) -> np.ndarray:
    if dtype == "string":
        return np.array(cell if isinstance(cell, bytes) else str(cell).encode(), object)
    kinds: dict[str, Callable[[Any], Any]] = {"b": _truth, "i": int, "u": int, "f": float}
    try:
        kind = np.dtype(dtype).kind
        return np.array(kinds[kind](_text(cell)), dtype)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{column} = {cell!r}: expected {dtype}") from error


def _text(cell: Any) -> Any:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell


def _truth(cell: Any) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[str(cell).lower()]


def _shown(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
