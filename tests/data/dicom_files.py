"""Small DICOM files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = "1.2.3.4"


def write_dicom(path: Path, pixels: np.ndarray, syntax: str | None = None, **elements: Any) -> Path:
    """Writes `pixels` [H, W], [D, H, W] with NumberOfFrames given, or [H, W, 3] as a CT file; elements override."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P1", "Secret^Name", "CT"
    dataset.SeriesInstanceUID = SERIES
    dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.25], 2
    colour = pixels.ndim == 3 and "NumberOfFrames" not in elements
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in elements.items():
        setattr(dataset, name, value)
    if syntax is not None:
        dataset.compress(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, heights: list[float], **elements: Any) -> list[Path]:
    """One axial slice at each height, filled with its position in `heights`, in files of that order."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_dicom(
            folder / f"{index}.dcm",
            np.full((4, 5), index, np.int16),
            ImagePositionPatient=[0, 0, height],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            **elements,
        )
        for index, height in enumerate(heights)
    ]
