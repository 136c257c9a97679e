"""Synthetic images as DICOM Secondary Capture objects, of one frame or many."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from medsynth_tf.core.errors import DataError

if TYPE_CHECKING:
    from medsynth_tf.data.writers import Provenance

PATIENT = "SYNTHETIC"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "medsynth_tf")

_MULTI_FRAME = {
    ("uint8", 1): MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    ("uint16", 1): MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ("uint8", 3): MultiFrameTrueColorSecondaryCaptureImageStorage,
}


def secondary_capture(image: np.ndarray, provenance: Provenance, spacing: Sequence[float] | None, what: str) -> Dataset:
    """Builds the object; UIDs follow from the provenance and the pixels, so that a repeat is the same object.

    Args:
        image: uint8 or uint16 [H, W, 1] or [D, H, W, 1], or uint8 [.., 3] as RGB.
        provenance: model, version and seed go into the derivation description and the UIDs.
        spacing: millimetres (row, column) or (slice, row, column).
        what: `image` or `label map`.

    Raises:
        DataError: `provenance.created` is no ISO 8601 time.
    """
    created = _time(provenance)
    volume = image.ndim == 4
    channels = image.shape[-1]
    sop_class = _MULTI_FRAME[image.dtype.name, channels] if volume else SecondaryCaptureImageStorage
    origin = f"{provenance.method}/{provenance.model}/{provenance.version}/{provenance.seed}"
    content = hashlib.sha256(f"{image.shape}{what}".encode() + image.tobytes()).hexdigest()

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.StudyInstanceUID = _uid("study", origin)
    dataset.SeriesInstanceUID = _uid("series", origin, what)
    dataset.SOPInstanceUID = _uid("instance", origin, content)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    # No patient stands behind the image: type 2 elements are there and empty.
    dataset.PatientName = PATIENT
    dataset.PatientID = PATIENT
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Synthetic image: no patient stands behind it"
    dataset.StudyID = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDate = dataset.ContentDate = created.strftime("%Y%m%d")
    dataset.StudyTime = dataset.ContentTime = created.strftime("%H%M%S")
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.StudyDescription = dataset.SeriesDescription = f"{PATIENT} {what}"

    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.SyntheticData = "YES"
    dataset.DerivationDescription = f"{provenance.text()}, {what}"
    dataset.ImageComments = provenance.text()
    dataset.BurnedInAnnotation = "NO"
    dataset.Manufacturer = "medsynth_tf"
    dataset.ManufacturerModelName = provenance.model[:64]
    dataset.SoftwareVersions = provenance.version[:64]
    dataset.InstanceCreatorUID = _uid("creator", provenance.method)

    _add_pixels(dataset, image)
    if spacing is not None:
        dataset.PixelSpacing = [_decimal(value) for value in spacing[-2:]]
    if volume:
        _add_frames(dataset, image.shape[0], spacing)
    return dataset


def _add_pixels(dataset: Dataset, image: np.ndarray) -> None:
    height, width, channels = image.shape[-3:]
    bits = 8 * image.dtype.itemsize
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = height, width, channels
    dataset.PhotometricInterpretation = "RGB" if channels == 3 else "MONOCHROME2"
    if channels == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    pixels = image.astype(image.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)  # values have even length
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def _add_frames(dataset: Dataset, frames: int, spacing: Sequence[float] | None) -> None:
    """What the multi-frame classes ask beside the pixels: frames are slices, in order, at equal distances."""
    dataset.NumberOfFrames = frames
    distance = 1.0 if spacing is None else spacing[0]
    dataset.FrameIncrementPointer = Tag("SliceLocationVector")
    dataset.SliceLocationVector = [frame * distance for frame in range(frames)]
    if spacing is not None:
        dataset.SpacingBetweenSlices = _decimal(distance)
    if dataset.SamplesPerPixel == 1:
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"


def _uid(*parts: str) -> str:
    """A UID under 2.25 made of a hash of the parts: the same parts, the same UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(parts)).int}"


def _decimal(value: float) -> str:
    """At most the 16 characters that a decimal string may have."""
    return f"{value:.10g}"[:16]


def _time(provenance: Provenance) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(provenance.created.replace("Z", "+00:00"))
    except ValueError as error:
        raise DataError(f"provenance.created = '{provenance.created}': expected an ISO 8601 time") from error
