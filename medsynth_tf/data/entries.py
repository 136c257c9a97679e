"""What a folder holds, before any pixel is read: one entry a record."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from medsynth_tf.data.readers import DICOM_SUFFIXES, RASTER_SUFFIXES, image_format, read_mask

# The .img of an Analyze pair goes with its .hdr.
_LISTED_SUFFIXES = (*DICOM_SUFFIXES, *RASTER_SUFFIXES, ".nii", ".nii.gz", ".hdr")


def first_mask(paths: Sequence[Path]) -> np.ndarray:
    """The label map in the only file."""
    return read_mask(paths[0])


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where the parts of one record are, and what is known beside the files."""

    id: str
    image: tuple[Path, ...]  # one file, or the slices of a series
    masks: tuple[Path, ...] = ()
    compose_mask: Callable[[Sequence[Path]], np.ndarray] = first_mask
    patient_id: str | None = None
    split: str | None = None
    label: int | None = None
    spacing: tuple[float, ...] | None = None
    modality: str | None = None
    landmarks: tuple[tuple[float, ...], ...] | None = None
    boxes: tuple[tuple[float, ...], ...] | None = None
    box_labels: tuple[int, ...] | None = None


def image_files(root: Path) -> list[Path]:
    """All image files below a folder, sorted: by suffix, or DICOM by content. Hidden and other files are passed over."""
    files = []
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or not path.is_file():
            continue
        name = path.name.lower()
        if name.endswith(_LISTED_SUFFIXES) or (path.suffix != ".img" and image_format(path) == "dicom"):
            files.append(path)
    return files


def without_suffix(path: Path) -> str:
    """`a/b.nii.gz` → `a/b`; what is no image suffix stays, as DICOM files are often named by numbers with dots."""
    name = path.as_posix()
    for suffix in sorted(_LISTED_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def identifiers(files: Iterable[Path], root: Path) -> dict[Path, str]:
    """An id for each file: its path below `root` without suffix, or with it where two differ by the suffix alone."""
    short = {path: without_suffix(path.relative_to(root)) for path in files}
    times = collections.Counter(short.values())
    return {path: name if times[name] == 1 else path.relative_to(root).as_posix() for path, name in short.items()}
