"""The commonest DICOM files, read without making an object of each element: uncompressed little-endian grey images.

pydicom's reading of such a slice takes longer than all else that is done to it. What is not exactly as expected here, damage
included, is left to pydicom: these functions then return None, and raise nothing that it would not.
"""

from __future__ import annotations

import math
import os
import re
import struct
from io import BufferedReader
from pathlib import Path

import numpy as np

from medsynth_tf.data.readers.common import check_size, stored_type
from medsynth_tf.data.readers.dicom_header import DicomHeader
from medsynth_tf.data.readers.grey import inverted, rescaled

_EXPLICIT, _IMPLICIT = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2"
_COMPRESSED = re.compile(rb"1\.2\.840\.10008\.1\.2\.(4\.\d+|5)")  # their headers are as in _EXPLICIT
_PREAMBLE = 132
_HEADER_BYTES = (1 << 14, 1 << 20)  # most headers fit the first; private ones of scanners need the second

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

_TRANSFER_SYNTAX = 0x00020010
_MODALITY, _PATIENT_ID, _SERIES_UID = 0x00080060, 0x00100020, 0x0020000E
_SLICE_THICKNESS, _SLICE_SPACING, _IMAGER_SPACING, _PIXEL_SPACING = 0x00180050, 0x00180088, 0x00181164, 0x00280030
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280103
_INTERCEPT, _SLOPE, _PIXELS = 0x00281052, 0x00281053, 0x7FE00010
_PYDICOMS = frozenset((0x00186011, 0x00283000, 0x52009229, 0x52009230))
"""Elements whose meaning is pydicom's to find: ultrasound regions, modality tables, functional groups."""

# Where the character set cannot matter: no escapes, no several values, none of the codes that national sets replace.
_PLAIN_TEXT = re.compile(rb"[ -\[\]-}]*")


class _NotNative(Exception):
    """The file is none of those that are read here."""


_ODD = (_NotNative, struct.error, ValueError, OverflowError, RecursionError)


def native_patient_id(file: BufferedReader) -> str | None:
    """The patient id, empty where there is none; None: ask pydicom."""
    try:
        return _Header(file, until=_PATIENT_ID).text(_PATIENT_ID)
    except _ODD:
        return None


def native_header(file: BufferedReader) -> DicomHeader | None:
    """What is kept beside the pixels; None: ask pydicom."""
    try:
        return _Header(file).kept()
    except _ODD:
        return None


def native_image(file: BufferedReader, path: Path) -> tuple[np.ndarray, DicomHeader] | None:
    """The image [H, W, 1] or [D, H, W, 1], as `read_dicom` describes it, and its header; None: ask pydicom.

    Raises:
        DataError: as `read_dicom`, for values that fit no record.
    """
    try:
        header = _Header(file)
        if header.compressed:
            return None
        kept = header.kept()
        photometric, bits, signed = header.text(_PHOTOMETRIC), header.whole(_STORED), header.whole(_REPRESENTATION)
        slope, intercept = header.number(_SLOPE, 1.0), header.number(_INTERCEPT, 0.0)
        shape = (kept.frames, header.whole(_ROWS), header.whole(_COLUMNS), header.whole(_SAMPLES))
        allocated = header.whole(_ALLOCATED)
    except _ODD:
        return None
    usual = photometric in ("MONOCHROME1", "MONOCHROME2") and shape[3] == 1 and signed in (0, 1)
    if not usual or allocated not in (8, 16) or not 0 < bits <= allocated:
        return None
    check_size(shape, path)
    stored = _stored(file, header, shape, np.dtype(f"<{'i' if signed else 'u'}{allocated // 8}"))
    if stored is None:
        return None
    if bits < allocated:  # what the unused bits hold is not said: shifted out, and the sign back in
        stored <<= allocated - bits
        stored >>= allocated - bits
    if photometric == "MONOCHROME1":
        stored = inverted(stored, bits, bool(signed))
    image = stored_type(rescaled(stored, slope, intercept, path), path)
    return (image[0] if kept.frames == 1 else image), kept


def _stored(file: BufferedReader, header: _Header, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """The pixels' bytes; None unless they are as many as the header says, and the last of the file."""
    size = math.prod(shape) * dtype.itemsize
    start, length = header.elements.get(_PIXELS, (0, 0))
    if length != size + size % 2 or start + length != os.fstat(file.fileno()).st_size:
        return None
    stored = np.empty(shape, dtype)
    file.seek(start)
    return stored if file.readinto(stored.reshape(-1).view(np.uint8).data) == size else None


class _Header:
    """Where the elements of a file's data set begin in its first bytes, and how long they are.

    Raises:
        _NotNative: the file is of another transfer syntax, has elements that are pydicom's, or a header of unusual size.
        struct.error: the file ends within the header.
    """

    def __init__(self, file: BufferedReader, until: int = _PIXELS):
        self._bytes = b""
        for size in _HEADER_BYTES:
            self._bytes += file.read(size - len(self._bytes))
            try:
                self.elements = self._walk(until)
                return
            except struct.error:
                if len(self._bytes) < size:
                    raise
        raise _NotNative

    def _walk(self, until: int) -> dict[int, tuple[int, int]]:
        if self._bytes[_PREAMBLE - 4 : _PREAMBLE] != b"DICM":
            raise _NotNative
        meta: dict[int, tuple[int, int]] = {}
        position = self._elements(meta, _PREAMBLE, _TRANSFER_SYNTAX, explicit=True)
        start, length = meta.get(_TRANSFER_SYNTAX, (0, 0))
        syntax = self._bytes[start : start + length].rstrip(b"\0 ")
        self.compressed = _COMPRESSED.fullmatch(syntax) is not None
        if not self.compressed and syntax not in (_EXPLICIT, _IMPLICIT):
            raise _NotNative
        position = self._after_meta(position)
        elements: dict[int, tuple[int, int]] = {}
        self._elements(elements, position, until, explicit=syntax != _IMPLICIT)
        if not _PYDICOMS.isdisjoint(elements):
            raise _NotNative
        return elements

    def _after_meta(self, position: int) -> int:
        """Where group 2 ends."""
        while struct.unpack_from("<H", self._bytes, position)[0] == 2:
            _, start, length = self._element(position, explicit=True)
            position = start + length
        return position

    def _elements(self, found: dict[int, tuple[int, int]], position: int, until: int, explicit: bool) -> int:
        """Notes elements up to `until` and no further; returns where the next one begins."""
        while True:
            tag, start, length = self._element(position, explicit)
            if tag > until:
                return position
            found[tag] = start, length
            if tag == until:
                return start + length
            position = self._after_items(start, explicit) if length == _UNDEFINED else start + length

    def _element(self, position: int, explicit: bool) -> tuple[int, int, int]:
        """(tag, where its value begins, its length)."""
        group, element = struct.unpack_from("<HH", self._bytes, position)
        tag = group << 16 | element
        if not explicit or group == 0xFFFE:
            return tag, position + 8, struct.unpack_from("<L", self._bytes, position + 4)[0]
        vr = self._bytes[position + 4 : position + 6]
        if vr in _SHORT_VRS:
            return tag, position + 8, struct.unpack_from("<H", self._bytes, position + 6)[0]
        if vr in _LONG_VRS:
            return tag, position + 12, struct.unpack_from("<L", self._bytes, position + 8)[0]
        struct.unpack_from("<L", self._bytes, position + 4)  # the header's end rather than an unknown VR
        raise _NotNative

    def _after_items(self, position: int, explicit: bool) -> int:
        """Where a sequence of undefined length ends."""
        while True:
            tag, start, length = self._element(position, explicit)
            if tag == _SEQUENCE_END:
                return start
            if tag != _ITEM:
                raise _NotNative
            position = start + length
            if length == _UNDEFINED:
                position = self._after_item(start, explicit)

    def _after_item(self, position: int, explicit: bool) -> int:
        while True:
            tag, start, length = self._element(position, explicit)
            if tag == _ITEM_END:
                return start
            position = self._after_items(start, explicit) if length == _UNDEFINED else start + length

    def _value(self, tag: int) -> bytes:
        """The bytes of a value, empty where it is absent."""
        start, length = self.elements.get(tag, (0, 0))
        if length and start + length > len(self._bytes):
            raise _NotNative
        return self._bytes[start : start + length]

    def text(self, tag: int) -> str:
        value = self._value(tag).rstrip(b"\0 ")
        if not _PLAIN_TEXT.fullmatch(value):
            raise _NotNative
        return value.decode("ascii").strip()

    def whole(self, tag: int) -> int:
        """An unsigned short."""
        (value,) = struct.unpack("<H", self._value(tag))
        return value

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Decimals written as text; none where the element is absent or empty."""
        value = self._value(tag).strip(b"\0 ")
        return tuple(float(part) for part in value.split(b"\\")) if value else ()

    def number(self, tag: int, default: float) -> float:
        found = self.numbers(tag)
        if len(found) > 1:
            raise _NotNative
        return found[0] if found else default

    def kept(self) -> DicomHeader:
        pixel, position, orientation = self.numbers(_PIXEL_SPACING), self.numbers(_POSITION), self.numbers(_ORIENTATION)
        if len(pixel) != 2:
            pixel = self.numbers(_IMAGER_SPACING)
        between = self.number(_SLICE_SPACING, 0) or self.number(_SLICE_THICKNESS, 0)
        return DicomHeader(
            patient_id=self.text(_PATIENT_ID),
            modality=self.text(_MODALITY),
            series_uid=self.text(_SERIES_UID),
            frames=int(self.text(_FRAMES) or 1) or 1,
            pixel_spacing=(pixel[0], pixel[1]) if len(pixel) == 2 and min(pixel) > 0 else None,
            slice_spacing=abs(between) or None,
            position=(position[0], position[1], position[2]) if len(position) == 3 else None,
            orientation=orientation if len(orientation) == 6 else None,
        )
