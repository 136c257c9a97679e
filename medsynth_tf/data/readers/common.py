"""What the readers share: opening files, one-line reasons, and the array types a record may have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import numpy as np

from medsynth_tf.core.errors import DataError

MAX_VOXELS = 2**30
"""Values that one image may have; headers that ask for more are damaged or hostile."""


def one_line(error: BaseException) -> str:
    """An exception of another library as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file, open for reading bytes.

    Raises:
        DataError: it is missing, a folder, or may not be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        yield file


def check_size(shape: tuple[int, ...], path: Path) -> None:
    """Refuses shapes that are empty or hold more than `MAX_VOXELS` values, before memory is asked for."""
    size = 1
    for length in shape:
        size *= int(length)
    if size <= 0:
        raise DataError(f"{path}: the image is empty, shape {shape}")
    if size > MAX_VOXELS:
        raise DataError(f"{path}: {size} values, shape {shape}, are more than the {MAX_VOXELS} allowed")


def stored_type(values: np.ndarray, path: Path) -> np.ndarray:
    """The same values in a type that records have: uint8, uint16, int16, int32 or float32.

    Integers go to the first of these that holds the type, or for wide types the values; other floats to float32.

    Raises:
        DataError: NaN or infinite values (their count is named), values beyond int32, or a type that is no number.
    """
    if values.dtype.kind == "f":
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise DataError(f"{path}: {bad} of {values.size} values are NaN or infinite")
        if values.dtype.itemsize > 4 and np.abs(values).max(initial=0) > np.finfo(np.float32).max:
            raise DataError(f"{path}: values beyond the range of float32")
        return values.astype(np.float32, copy=False)
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind not in "iu":
        raise DataError(f"{path}: values of type {values.dtype} are no image")
    for target in (np.uint8, np.uint16, np.int16, np.int32):
        if np.can_cast(values.dtype, target):
            return values.astype(target, copy=False)
    return narrowed(values, path)


def narrowed(values: np.ndarray, path: Path) -> np.ndarray:
    """Integers of a wide type as int16 where all fit, else int32.

    Raises:
        DataError: values beyond int32.
    """
    return values.astype(integer_type(int(values.min(initial=0)), int(values.max(initial=0)), path))


def integer_type(low: int, high: int, path: Path) -> np.dtype:
    """int16 where both ends fit, else int32.

    Raises:
        DataError: one is beyond int32.
    """
    for target in (np.int16, np.int32):
        limits = np.iinfo(target)
        if limits.min <= low and high <= limits.max:
            return np.dtype(target)
    raise DataError(f"{path}: values from {low} to {high} do not fit 32 bits")


def label_map(image: np.ndarray, path: Path) -> np.ndarray:
    """An image of one channel [..., 1] as a label map: uint8, or uint16 for labels above 255.

    Raises:
        DataError: several channels, negative or fractional values, labels above 65535.
    """
    if image.shape[-1] != 1:
        raise DataError(f"{path}: a mask has one channel, this one has {image.shape[-1]}")
    labels = image[..., 0]
    if labels.dtype in (np.uint8, np.uint16):
        return labels
    low, high = labels.min(), labels.max()
    if low < 0 or high > 65535 or (labels.dtype.kind == "f" and np.any(labels != np.rint(labels))):
        raise DataError(f"{path}: a mask holds whole labels from 0 to 65535, this one {labels.dtype} from {low} to {high}")
    return labels.astype(np.uint8 if high <= 255 else np.uint16)
