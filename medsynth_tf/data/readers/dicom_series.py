"""DICOM series: the slices of one scan, in their order in space, as one volume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers.dicom import read_dicom, read_dicom_header
from medsynth_tf.data.readers.dicom_header import DicomHeader

_GAP_TOLERANCE = 0.05
"""Largest deviation of a gap between slices from the median gap, as a part of it; scanners round positions."""


def series_of(files: Iterable[Path]) -> dict[str, list[tuple[Path, DicomHeader]]]:
    """Groups files by SeriesInstanceUID, each group's files by name; only headers are read.

    Raises:
        DataError: a file is damaged, or its header names no series.
    """
    series: dict[str, list[tuple[Path, DicomHeader]]] = {}
    for path in sorted(files):
        header = read_dicom_header(path)
        if not header.series_uid:
            raise DataError(f"{path}: has no SeriesInstanceUID, so it belongs to no series")
        series.setdefault(header.series_uid, []).append((path, header))
    return series


def series_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that are not hidden, sorted."""
    return tuple(sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")))


def series_header(files: Sequence[Path]) -> DicomHeader:
    """The header of a series' first file, speaking for all of it.

    Raises:
        DataError: it is damaged.
    """
    header = read_dicom_header(files[0])
    return header if len(files) == 1 else dataclasses.replace(header, frames=len(files))


def read_series(files: Sequence[Path]) -> dict[str, Any]:
    """Reads the slices of one series, given in any order, as `read_image` does.

    Raises:
        DataError: there is no file, there are several series, or one that `read_slices` refuses.
    """
    if not files:
        raise DataError("no files, expected the slices of a DICOM series")
    series = series_of(files)
    if len(series) > 1:
        raise DataError(f"{files[0].parent}: {len(series)} series, expected one; layout=series reads each as a volume")
    return read_slices(next(iter(series.values())), files[0].parent)


def read_slices(slices: Sequence[tuple[Path, DicomHeader]], origin: Path) -> dict[str, Any]:
    """Stacks slices by their position along the slice normal, lowest first.

    Returns:
        As `read_image`: `image` [D, H, W, C]; `spacing` has the measured distance of slices.

    Raises:
        DataError: slices of different size, direction or patient, without a position, at the same position, or with a gap;
            or a slice is damaged. Messages name `origin` or the slice.
    """
    if len({header.patient_id for _, header in slices}) > 1:
        raise DataError(f"{origin}: one series with {len({h.patient_id for _, h in slices})} patient ids")
    order, distance = _order([header for _, header in slices], origin)
    records = [read_dicom(slices[index][0]) for index in order]
    shapes = {record["image"].shape for record in records}
    if len(shapes) > 1 or len(next(iter(shapes))) != 3:
        raise DataError(f"{origin}: slices of shapes {', '.join(map(str, sorted(shapes)))}; a series has one 2-D shape")
    types = {record["image"].dtype for record in records}
    common = np.result_type(*types)
    if common == np.float64:  # int32 with float32: the records' widest float
        common = np.dtype(np.float32)
    header = dataclasses.replace(slices[0][1], frames=len(slices), slice_spacing=distance)
    image = np.stack([record["image"].astype(common, copy=False) for record in records])
    return {"image": image, **header.entries()}


def _order(headers: Sequence[DicomHeader], origin: Path) -> tuple[list[int], float | None]:
    """Indices of the slices from lowest to highest along the normal, and the distance between neighbours."""
    for header in headers:
        if header.position is None or header.orientation is None:
            raise DataError(f"{origin}: a slice has no ImagePositionPatient or ImageOrientationPatient; order unknown")
    orientations = np.asarray([header.orientation for header in headers])
    if np.ptp(orientations, axis=0).max() > 1e-3:
        raise DataError(f"{origin}: slices have different directions; a localizer among them, or a gantry moved")
    spacings = {header.pixel_spacing for header in headers}
    if len(spacings) > 1:
        raise DataError(f"{origin}: slices have different pixel spacings: {sorted(map(str, spacings))}")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    along = np.asarray([header.position for header in headers]) @ normal
    order = np.argsort(along, kind="stable")
    if len(order) == 1:
        return [0], headers[0].slice_spacing
    gaps = np.diff(along[order])
    typical = float(np.median(gaps))
    if gaps.min() <= 1e-4:
        raise DataError(f"{origin}: {int((gaps <= 1e-4).sum())} pair(s) of slices at the same position")
    uneven = np.abs(gaps - typical) > _GAP_TOLERANCE * typical
    if uneven.any():
        at = int(np.argmax(uneven))
        raise DataError(f"{origin}: gap of {gaps[at]:.3f} mm after slice {at}, others are {typical:.3f} mm; a slice is missing")
    return order.tolist(), typical
