"""What is kept of a DICOM file beside its pixels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class DicomHeader:
    """What is kept of a DICOM file beside its pixels. Names, dates, institutions and all else are never looked at."""

    patient_id: str
    modality: str
    series_uid: str
    frames: int
    pixel_spacing: tuple[float, float] | None
    slice_spacing: float | None
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Millimetres (row, column), or (slice, row, column) for several frames; None where the file does not say."""
        if self.frames == 1 or self.pixel_spacing is None:
            return self.pixel_spacing
        return None if self.slice_spacing is None else (self.slice_spacing, *self.pixel_spacing)

    def entries(self) -> dict[str, Any]:
        """What goes into a record."""
        record: dict[str, Any] = {"patient_id": self.patient_id, "modality": self.modality}
        if self.spacing is not None:
            record["spacing"] = np.asarray(self.spacing, np.float32)
        return {name: value for name, value in record.items() if not isinstance(value, str) or value}
