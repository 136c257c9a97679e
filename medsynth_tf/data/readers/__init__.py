"""Readers of medical image files: one file (or one DICOM series) in, one dictionary of arrays out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers.common import label_map, opened

RASTER_SUFFIXES = (".png", ".tif", ".tiff", ".gif", ".jpg", ".jpeg", ".bmp")
NIFTI_SUFFIXES = (".nii", ".nii.gz", ".img", ".hdr")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_DICOM_PREAMBLE = 128


def image_format(path: str | Path) -> str | None:
    """`dicom`, `nifti` or `raster`; None when neither content nor suffix is known. DICOM goes by content, whatever the suffix.

    Raises:
        DataError: the file cannot be opened.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(DICOM_SUFFIXES):
        return "dicom"
    with opened(path) as file:
        start = file.read(_DICOM_PREAMBLE + 4)
    if start[_DICOM_PREAMBLE:] == b"DICM":
        return "dicom"
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(RASTER_SUFFIXES):
        return "raster"
    return None


def read_image(path: str | Path) -> dict[str, Any]:
    """Reads an image of any known format; a folder is read as one DICOM series.

    Returns:
        `image`: [H, W, C] or [D, H, W, C], of uint8, int16, uint16, int32 or float32; where the file says so also
        `spacing` (float32 [2] or [3], millimetres, in the image's axis order), `patient_id` and `modality`.

    Raises:
        DataError: the file is missing, damaged, not of a known format, or holds something that is no image.
    """
    path = Path(path)
    if path.is_dir():
        from medsynth_tf.data.readers.dicom_series import read_series, series_files

        return read_series(series_files(path))
    return _reader(path)(path)


def read_mask(path: str | Path) -> np.ndarray:
    """Reads a label map: uint8 or uint16, [H, W] or [D, H, W]; palette files give their indices, not their colours.

    Raises:
        DataError: as `read_image`, or the file holds colours, or values that are no labels (negative, broken, above 65535).
    """
    path = Path(path)
    kind = image_format(path) if path.is_file() else None
    if kind == "raster":
        from medsynth_tf.data.readers.raster import read_raster

        image = read_raster(path, palette_indices=True)["image"]
    else:
        image = read_image(path)["image"]
    return label_map(image, path)


def _reader(path: Path) -> Callable[[Path], dict[str, Any]]:
    kind = image_format(path)
    if kind == "dicom":
        from medsynth_tf.data.readers.dicom import read_dicom

        return read_dicom
    if kind == "nifti":
        from medsynth_tf.data.readers.nifti import read_nifti

        return read_nifti
    if kind == "raster":
        from medsynth_tf.data.readers.raster import read_raster

        return read_raster
    known = " ".join((*DICOM_SUFFIXES, *NIFTI_SUFFIXES, *RASTER_SUFFIXES))
    raise DataError(f"{path}: not a known image format; DICOM by content, else by suffix: {known}")
