"""TFRecord files without TensorFlow: framing, checksums, and where each record begins."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, cast

import google_crc32c

from medsynth_tf.core.errors import DataError

Compression = Literal["", "GZIP"]

GZIP_LEVEL = 1
"""Pixels are mostly noise: level 6 takes three times as long and saves a few per cent more."""


class RecordWriter:
    """Writes TFRecord frames: length, its checksum, the bytes, their checksum."""

    def __init__(self, path: Path, compression: Compression = ""):
        self._raw = path.open("wb")
        # No name and time in the gzip header, so that the same records make the same file.
        zipped = gzip.GzipFile("", "wb", GZIP_LEVEL, self._raw, mtime=0) if compression else None
        self._file: BinaryIO = cast(BinaryIO, zipped or self._raw)

    def write(self, record: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(record))
        self._file.write(length + _checksum(length))
        self._file.write(record)
        self._file.write(_checksum(record))

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not self._raw:
            self._file.close()
        self._raw.close()


def read_frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (offset of the record's bytes, the bytes) of a file, `.gz` or not; offsets count uncompressed bytes.

    Raises:
        DataError: the file is cut short, or a checksum is wrong.
    """
    try:
        with _open(path) as file:
            offset = 0
            while header := file.read(12):
                record = _checked(file, header, path, offset)
                yield offset + 12, record
                offset += 16 + len(record)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def read_record(path: Path, offset: int) -> bytes:
    """The record whose bytes begin at `offset` in an uncompressed file.

    Raises:
        DataError: as `read_frames`.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset - 12)
            return _checked(file, file.read(12), path, offset - 12)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, gzip.open(path, "rb")), 1 << 20))
    return path.open("rb", buffering=1 << 20)


def _checked(file: BinaryIO, header: bytes, path: Path, offset: int) -> bytes:
    if len(header) < 12:
        raise DataError(f"{path}: cut short at byte {offset}")
    if _checksum(header[:8]) != header[8:]:
        raise DataError(f"{path}: damaged record header at byte {offset}, or not a TFRecord file")
    (length,) = struct.unpack("<Q", header[:8])
    record, checksum = file.read(length), file.read(4)
    if len(record) < length or len(checksum) < 4:
        raise DataError(f"{path}: cut short in the record at byte {offset}")
    if _checksum(record) != checksum:
        raise DataError(f"{path}: damaged record at byte {offset}, its checksum is wrong")
    return record


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the format asks."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
