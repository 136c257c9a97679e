"""Records: what one is, and how it becomes a `tf.Example` and back. The table of names stands in docs/architecture.md."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.core.names import suggestion
from medsynth_tf.data.example import from_example, to_example
from medsynth_tf.data.tfrecord_files import Compression, RecordWriter

Record = dict[str, Any]

IMAGE_TYPES = ("uint8", "int16", "uint16", "int32", "float32")
MASK_TYPES = ("uint8", "uint16")
REQUIRED = ("id", "patient_id", "image")
OPTIONAL = ("mask", "label", "landmarks", "boxes", "box_labels", "spacing", "modality")
SPLITS = ("train", "val", "test")
OUTSIDE = 255
"""The label of mask pixels outside the field of view."""


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """What all records of a stream have in common: static rank, channels, types, and which optional names there are."""

    dimensions: int
    channels: int
    image_dtype: str
    mask_dtype: str | None
    optional: tuple[str, ...]

    @classmethod
    def of(cls, record: Record, optional: Iterable[str] | None = None) -> RecordSpec:
        """The spec of one record, with the names in `optional` alone when that is given."""
        names = tuple(name for name in OPTIONAL if name in (record if optional is None else set(optional)))
        image = record["image"]
        mask_dtype = record["mask"].dtype.name if "mask" in names else None
        return cls(image.ndim - 1, image.shape[-1], image.dtype.name, mask_dtype, names)

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the records."""
        return REQUIRED + self.optional

    def signature(self) -> dict[str, Any]:
        """`tf.TensorSpec` by name, for one record."""
        import tensorflow as tf

        space: list[int | None] = [None] * self.dimensions
        specs = {
            "id": tf.TensorSpec([], tf.string),
            "patient_id": tf.TensorSpec([], tf.string),
            "image": tf.TensorSpec([*space, self.channels], self.image_dtype),
            "mask": tf.TensorSpec(space, self.mask_dtype or "uint8"),
            "label": tf.TensorSpec([], tf.int64),
            "landmarks": tf.TensorSpec([None, self.dimensions], tf.float32),
            "boxes": tf.TensorSpec([None, 2 * self.dimensions], tf.float32),
            "box_labels": tf.TensorSpec([None], tf.int64),
            "spacing": tf.TensorSpec([self.dimensions], tf.float32),
            "modality": tf.TensorSpec([], tf.string),
        }
        return {name: specs[name] for name in self.names}

    def check(self, record: Record, origin: str) -> None:
        """Refuses a record that cannot stand in one stream with the others.

        Raises:
            DataError: other number of axes or channels, other types, or a name is missing.
        """
        missing = [name for name in self.names if name not in record]
        if missing:
            raise DataError(f"{origin}: has no {', '.join(missing)}, which the other records have")
        other = RecordSpec.of(record, self.optional)
        if other != self:
            raise DataError(f"{origin}: image {other._text()}, but the first record's is {self._text()}")

    def _text(self) -> str:
        mask = f" with {self.mask_dtype} mask" if self.mask_dtype else ""
        return f"{self.dimensions}-D {self.image_dtype} of {self.channels} channel(s){mask}"


def validate(record: Record, origin: str = "") -> None:
    """Checks a record against the table of names.

    Args:
        record: the record.
        origin: what messages call it, the file's path for instance; default: its id.

    Raises:
        DataError: a name is unknown or missing; an array has the wrong type, rank or size; an image holds NaN; boxes are
            empty or outside the image; spacing is not positive.
    """
    origin = origin or f"record '{record.get('id', '?')}'"
    for name in record:
        if name not in REQUIRED + OPTIONAL:
            raise DataError(f"{origin}: unknown entry '{name}'" + suggestion(name, REQUIRED + OPTIONAL))
    for name in REQUIRED:
        if name not in record:
            raise DataError(f"{origin}: has no '{name}'")
    for name in ("id", "patient_id", "modality"):
        if name in record and (not isinstance(record[name], str) or not record[name]):
            raise DataError(f"{origin}: {name} = {record[name]!r}, expected a text that is not empty")
    image = _array(record, "image", origin, IMAGE_TYPES)
    if image.ndim not in (3, 4) or image.size == 0:
        raise DataError(f"{origin}: image of shape {image.shape}, expected [H, W, C] or [D, H, W, C], none of them 0")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DataError(f"{origin}: image has {int((~np.isfinite(image)).sum())} values that are NaN or infinite")
    size, dimensions = image.shape[:-1], image.ndim - 1
    if "mask" in record and _array(record, "mask", origin, MASK_TYPES).shape != size:
        raise DataError(f"{origin}: mask of size {record['mask'].shape}, but the image has {size}")
    if "label" in record and (isinstance(record["label"], bool) or not isinstance(record["label"], (int, np.integer))):
        raise DataError(f"{origin}: label = {record['label']!r}, expected a whole number")
    if "spacing" in record:
        spacing = _array(record, "spacing", origin, ("float32",), (dimensions,))
        if not (np.isfinite(spacing).all() and (spacing > 0).all()):
            raise DataError(f"{origin}: spacing = {spacing.tolist()}, expected millimetres above 0")
    if "landmarks" in record and np.isinf(_array(record, "landmarks", origin, ("float32",), (None, dimensions))).any():
        raise DataError(f"{origin}: landmarks are infinite; NaN says that one is not visible")
    if ("boxes" in record) != ("box_labels" in record):
        raise DataError(f"{origin}: boxes and box_labels go together, one of them is missing")
    if "boxes" in record:
        boxes = _array(record, "boxes", origin, ("float32",), (None, 2 * dimensions))
        _array(record, "box_labels", origin, ("int64",), (len(boxes),))
        low, high = boxes[:, :dimensions], boxes[:, dimensions:]
        if not ((low >= 0).all() and (low < high).all() and (high <= size).all()):  # NaN fails too
            raise DataError(f"{origin}: a box is empty or outside the image of size {size}")


def _array(
    record: Record, name: str, origin: str, types: tuple[str, ...], shape: tuple[int | None, ...] | None = None
) -> np.ndarray:
    value = record[name]
    if not isinstance(value, np.ndarray):
        raise DataError(f"{origin}: {name} is a {type(value).__name__}, expected an array")
    if value.dtype.name not in types:
        raise DataError(f"{origin}: {name} of type {value.dtype}, expected {' or '.join(types)}")
    if shape is not None and (value.ndim != len(shape) or any(b not in (None, a) for a, b in zip(value.shape, shape))):
        wanted = "[" + ", ".join("N" if length is None else str(length) for length in shape) + "]"
        raise DataError(f"{origin}: {name} of shape {list(value.shape)}, expected {wanted}")
    return value


def encode(record: Record, split: str = "") -> bytes:
    """A valid record as a serialized `tf.Example`; `split` is stored beside it when given.

    Raises:
        DataError: as `validate`.
    """
    validate(record)
    features: dict[str, tuple[str, Any]] = {}
    pixels: dict[str, memoryview] = {}
    for name in ("id", "patient_id", "modality"):
        if name in record:
            features[name] = ("bytes_list", [record[name].encode()])
    if split:
        features["split"] = ("bytes_list", [split.encode()])
    if "label" in record:
        features["label"] = ("int64_list", [int(record["label"])])
    for name in ("spacing", "landmarks", "boxes"):
        if name in record:
            features[name] = ("float_list", record[name].ravel().tolist())
    if "box_labels" in record:
        features["box_labels"] = ("int64_list", record["box_labels"].tolist())
    for name in ("image", "mask"):
        if name in record:
            array = record[name]
            pixels[name] = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
            features[f"{name}/shape"] = ("int64_list", list(array.shape))
            features[f"{name}/dtype"] = ("bytes_list", [array.dtype.name.encode()])
    features["image/channels"] = ("int64_list", [record["image"].shape[-1]])
    if "mask" in record:
        occurs = np.bincount(record["mask"].ravel()) > 0
        if record["mask"].dtype == np.uint8:
            occurs[OUTSIDE:] = False  # so that the codes a schema allows are an interval
        features["mask/values"] = ("int64_list", np.flatnonzero(occurs).tolist())
    return to_example(features, pixels)


def decode(serialized: bytes, origin: str = "record") -> Record:
    """The record that `encode` was given.

    Raises:
        DataError: the bytes are no `tf.Example`, or none of ours; `origin` stands in the message.
    """
    features = _features(serialized, origin)
    record: Record = {}
    try:
        for name in ("id", "patient_id", "modality"):
            if name in features:
                record[name] = features[name][0].decode()
        if "label" in features:
            record["label"] = int(features["label"][0])
        for name in ("image", "mask"):
            if name in features:
                dtype = np.dtype(features[f"{name}/dtype"][0].decode()).newbyteorder("<")
                flat = np.frombuffer(bytearray(features[name][0]), dtype)
                record[name] = flat.reshape(list(features[f"{name}/shape"])).astype(dtype.newbyteorder("="), copy=False)
        dimensions = record["image"].ndim - 1
        for name, width in (("landmarks", dimensions), ("boxes", 2 * dimensions)):
            if name in features or (name == "boxes" and "box_labels" in features):
                record[name] = np.asarray(features.get(name, ()), np.float32).reshape(-1, width)
        if "box_labels" in features:
            record["box_labels"] = np.asarray(features["box_labels"], np.int64)
        if "spacing" in features:
            record["spacing"] = np.asarray(features["spacing"], np.float32)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{origin}: a tf.Example, but not of this project's records: {error}") from error
    return record


def example_summary(serialized: bytes, origin: str = "record") -> dict[str, Any]:
    """`id`, `patient_id`, `split` and `label` (None where absent) and `optional`, the optional names; no pixels.

    Raises:
        DataError: the bytes are no `tf.Example`, or hold no id.
    """
    features = _features(serialized, origin)
    if not features.get("id"):
        raise DataError(f"{origin}: a tf.Example, but without an id")
    identity = features["id"][0].decode()
    return {
        "id": identity,
        "patient_id": features["patient_id"][0].decode() if features.get("patient_id") else identity,
        "split": features["split"][0].decode() if features.get("split") else None,
        "label": int(features["label"][0]) if features.get("label") else None,
        "optional": tuple(name for name in OPTIONAL if name in features),
    }


def _features(serialized: bytes, origin: str) -> Mapping[str, Any]:
    try:
        return from_example(serialized)
    except ValueError as error:
        raise DataError(f"{origin}: {error}") from error


def feature_spec() -> dict[str, Any]:
    """What `tf.io.parse_example` needs: every name of the schema, absent ones empty."""
    import tensorflow as tf

    texts = ("id", "patient_id", "modality", "split", "image", "image/dtype", "mask", "mask/dtype")
    integers = ("label", "box_labels", "image/shape", "image/channels", "mask/shape", "mask/values")
    spec: dict[str, Any] = {name: tf.io.FixedLenFeature([], tf.string, "") for name in texts}
    spec |= {name: tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True) for name in integers}
    floats = ("spacing", "landmarks", "boxes")
    return spec | {name: tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True) for name in floats}


def parse(serialized: Any, spec: RecordSpec) -> dict[str, Any]:
    """In the graph: a scalar string tensor → the tensors of one record, shaped and typed as `spec.signature()` says.

    An example that is not as `spec` says fails the step with InvalidArgumentError, which names its id.
    """
    import tensorflow as tf

    features = tf.io.parse_single_example(serialized, feature_spec())
    record = {name: features[name] for name in spec.names}
    for name, dtype in (("image", spec.image_dtype), ("mask", spec.mask_dtype)):
        if dtype is None:
            continue
        message = [f"{name} is not {dtype} as in the other records:", features["id"], features[f"{name}/dtype"]]
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(features[f"{name}/dtype"], dtype), message)]):
            flat = tf.io.decode_raw(features[name], dtype)
        record[name] = tf.reshape(flat, features[f"{name}/shape"])
    for name, width in (("landmarks", spec.dimensions), ("boxes", 2 * spec.dimensions)):
        if name in record:
            record[name] = tf.reshape(features[name], [-1, width])
    if "label" in record:
        record["label"] = tf.squeeze(features["label"], axis=0)
    return {name: tf.ensure_shape(value, spec.signature()[name].shape) for name, value in record.items()}


def shard_names(split: str, shards: int, compression: Compression = "") -> list[str]:
    """`train-00000-of-00004.tfrecord`, …; with `.gz` behind when compressed."""
    suffix = ".tfrecord.gz" if compression else ".tfrecord"
    return [f"{split}-{index:05d}-of-{shards:05d}{suffix}" for index in range(shards)]


def write_shards(
    records: Iterable[Record], folder: str | Path, split: str, shards: int = 4, compression: Compression = ""
) -> list[Path]:
    """Writes records in turn to the shards of a split, one thread each, holding two records a shard in memory.

    All shards get their final names when all are written; on an error none does.

    Returns:
        The shards' paths. Record i is in shard i modulo `shards`.

    Raises:
        DataError: a record is not valid. OSError: the disk is full, or the folder cannot be written.
    """
    if shards < 1:
        raise DataError(f"shards = {shards}: expected at least 1")
    paths = [Path(folder) / name for name in shard_names(split, shards, compression)]
    with contextlib.ExitStack() as stack:
        # Entered first, so left last: files are renamed after the writers are closed.
        temporaries = [stack.enter_context(replacing_file(path)) for path in paths]
        writers = [stack.enter_context(RecordWriter(temporary, compression)) for temporary in temporaries]
        # One thread a shard keeps the order within it.
        threads = [stack.enter_context(concurrent.futures.ThreadPoolExecutor(1)) for _ in paths]

        def write(shard: int, record: Record) -> None:
            writers[shard].write(encode(record, split))

        pending: collections.deque[concurrent.futures.Future[None]] = collections.deque()
        for index, record in enumerate(records):
            shard = index % shards
            pending.append(threads[shard].submit(write, shard, record))
            if len(pending) > 2 * shards:
                pending.popleft().result()
        for written in pending:
            written.result()
    return paths
