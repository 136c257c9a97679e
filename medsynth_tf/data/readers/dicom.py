"""DICOM files through pydicom: one file, of one frame or many."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.tag import BaseTag, Tag
from pydicom.uid import RLELossless

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers.common import check_size, one_line, opened, stored_type
from medsynth_tf.data.readers.dicom_header import DicomHeader
from medsynth_tf.data.readers.grey import inverted, rescaled
from medsynth_tf.data.readers.native import native_header, native_image, native_patient_id
from medsynth_tf.data.readers.rle import RLE_PLUGIN

# What pydicom raises on damaged files, depending on where the damage is.
_DAMAGE = (
    InvalidDicomError, BytesLengthException, AttributeError, EOFError, IndexError, KeyError, NotImplementedError, OSError,
    OverflowError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip

_PATIENT_ID = Tag("PatientID")
_PATIENT_TAGS: list[BaseTag | int] = [Tag("SpecificCharacterSet"), _PATIENT_ID]


def read_dicom_header(path: str | Path) -> DicomHeader:
    """The header alone; no pixels are decoded.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = Path(path)
    with opened(path) as file:
        return native_header(file) or _header(_dataset(file, path, stop_before_pixels=True), path)


def read_patient_id(path: str | Path) -> str:
    """The patient id alone, empty where there is none; the file is read no further than that.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = Path(path)
    with opened(path) as file:
        patient_id = native_patient_id(file)
        if patient_id is not None:
            return patient_id
        file.seek(0)
        try:
            start = read_partial(file, lambda tag, vr, length: tag > _PATIENT_ID, specific_tags=_PATIENT_TAGS)
            return str(start.get("PatientID") or "").strip()
        except _DAMAGE as error:
            raise DataError(f"{path}: {_damage(error)}") from error


def read_dicom(path: str | Path) -> dict[str, Any]:
    """Reads an image file of any transfer syntax that pydicom decodes here (raw, RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K).

    Stored values are turned into what they mean: rescale slope and intercept or the modality table (also per frame) applied,
    MONOCHROME1 inverted within its stored range so that higher is brighter, YBR turned into RGB, colour by plane into colour
    by pixel, palettes into RGB. Integers stay integers where slope and intercept are whole, else float32.

    Returns:
        `image` [H, W, C], or [D, H, W, C] for several frames; `modality`; `patient_id` and `spacing` (row, column) or
        (slice, row, column) in millimetres where the file has them.

    Raises:
        DataError: the file is missing, damaged, or holds no pixels.
    """
    path = Path(path)
    with opened(path) as file:
        native = native_image(file, path)
        if native is not None:
            image, header = native
            return {"image": image, **header.entries()}
        dataset = _dataset(file, path)
    return {"image": _image(dataset, path), **_header(dataset, path).entries()}


def _dataset(file: BinaryIO, path: Path, stop_before_pixels: bool = False) -> Dataset:
    file.seek(0)
    try:
        return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
    except _DAMAGE as error:
        raise DataError(f"{path}: {_damage(error)}") from error


def _damage(error: BaseException) -> str:
    if isinstance(error, InvalidDicomError):
        return "not a DICOM file (no DICM mark after the preamble)"
    return f"damaged DICOM header: {one_line(error)}"


def _header(dataset: Dataset, path: Path) -> DicomHeader:
    try:
        frame = _functional_groups(dataset, 0)
        measures = _item(frame, "PixelMeasuresSequence") or dataset
        position = _item(frame, "PlanePositionSequence") or dataset
        orientation = _item(frame, "PlaneOrientationSequence") or dataset
        between = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
        return DicomHeader(
            patient_id=str(dataset.get("PatientID", "") or "").strip(),
            modality=str(dataset.get("Modality", "") or "").strip(),
            series_uid=str(dataset.get("SeriesInstanceUID", "") or ""),
            frames=int(dataset.get("NumberOfFrames") or 1),
            pixel_spacing=_pixel_spacing(dataset, measures),
            slice_spacing=abs(float(between)) if between else None,
            position=_floats(position, "ImagePositionPatient", 3),
            orientation=_floats(orientation, "ImageOrientationPatient", 6),
        )
    except _DAMAGE as error:
        raise DataError(f"{path}: {_damage(error)}") from error


def _pixel_spacing(dataset: Dataset, measures: Dataset) -> tuple[float, float] | None:
    """Millimetres (row, column)."""
    spacing = _floats(measures, "PixelSpacing", 2) or _floats(dataset, "ImagerPixelSpacing", 2)
    if spacing is None:
        region = _item(dataset, "SequenceOfUltrasoundRegions")  # ultrasound: centimetres (unit 3) per pixel
        if region is not None and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == 3:
            spacing = (abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10)
    return spacing if spacing is not None and min(spacing) > 0 else None


def _floats(dataset: Dataset, name: str, count: int) -> Any:
    """The numbers of an element as a tuple; None where it is absent or has another count."""
    values = dataset.get(name)
    if values is None or isinstance(values, (str, float)) or len(values) != count:
        return None
    return tuple(float(value) for value in values)


def _item(dataset: Dataset | None, name: str) -> Dataset | None:
    """The first item of a sequence, if there is one."""
    sequence = dataset.get(name) if dataset is not None else None
    return sequence[0] if sequence else None


def _functional_groups(dataset: Dataset, frame: int) -> Dataset | None:
    """The functional groups of a frame of an enhanced object: its own over the shared ones; None for other objects."""
    shared = _item(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if shared is None and not per_frame:
        return None
    groups = Dataset()
    groups.update(shared or {})
    if per_frame and frame < len(per_frame):
        groups.update(per_frame[frame])
    return groups


def _image(dataset: Dataset, path: Path) -> np.ndarray:
    if "PixelData" not in dataset:
        what = "float pixels, which are" if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset else "no pixels:"
        kind = dataset.file_meta.get("MediaStorageSOPClassUID")
        raise DataError(f"{path}: holds {what} no image to read ({getattr(kind, 'name', 'unknown object')})")
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = int(dataset.get("SamplesPerPixel", 1))
        shape = (frames, int(dataset.Rows), int(dataset.Columns), samples)
        check_size(shape, path)
        stored, photometric = _decoded(dataset)
        stored = stored.reshape(shape)
        if photometric == "PALETTE COLOR":
            image = _palette(apply_color_lut(stored[..., 0], dataset))
        elif samples == 1:
            image = _meaning(dataset, stored, photometric, path)
        else:
            image = stored
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: cannot decode pixels: {one_line(error)}") from error
    image = stored_type(image, path)
    return image[0] if frames == 1 else image


def _decoded(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Stored values, colours by pixel and in RGB; and the photometric interpretation that they now have."""
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = RLE_PLUGIN if syntax == RLELossless else ""
    options: Any = {"decoding_plugin": plugin, "view_only": True}
    array, properties = get_decoder(syntax).as_array(dataset, **options)
    return array, str(properties["photometric_interpretation"])


def _palette(colours: np.ndarray) -> np.ndarray:
    """RGB of a 16-bit palette as 8 bits where its entries hold no more than that."""
    if colours.dtype == np.uint16 and not np.any(colours & 0xFF):
        return (colours >> 8).astype(np.uint8)
    return colours


def _meaning(dataset: Dataset, stored: np.ndarray, photometric: str, path: Path) -> np.ndarray:
    """Grey stored values [D, H, W, 1] → the quantity they stand for."""
    if photometric == "MONOCHROME1":
        stored = inverted(stored, int(dataset.BitsStored), bool(dataset.PixelRepresentation))
    if "ModalityLUTSequence" in dataset:
        return apply_modality_lut(stored, dataset)
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        group = _item(_functional_groups(dataset, 0), "PixelValueTransformationSequence") or dataset
        return rescaled(stored, *_rescale(group), path)
    rescales = [
        _rescale(_item(_functional_groups(dataset, frame), "PixelValueTransformationSequence") or dataset)
        for frame in range(len(stored))
    ]
    if len(set(rescales)) == 1:
        return rescaled(stored, *rescales[0], path)
    return np.stack([rescaled(values, *rescale, path) for values, rescale in zip(stored, rescales)])


def _rescale(group: Dataset) -> tuple[float, float]:
    """Slope and intercept."""
    slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))
