"""Synthetic images as PNG, NIfTI or DICOM files that say what they are.

Every file carries its provenance and a SYNTHETIC mark, appears under its name when it is whole, and is the same, byte for byte,
when written again from the same image and provenance.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file, write_text
from medsynth_tf.data.records import IMAGE_TYPES, MASK_TYPES

SYNTHETIC = "SYNTHETIC"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a synthetic image comes from."""

    model: str
    version: str
    seed: int
    method: str
    created: str  # ISO 8601, such as 2024-05-01T12:00:00+00:00

    def text(self) -> str:
        """One line."""
        return f"{SYNTHETIC} image by {self.method}, model {self.model} version {self.version}, seed {self.seed}"

    def fields(self) -> dict[str, str]:
        """Name and value of each part, and the mark, as they go into files."""
        parts = {f"medsynth:{name}": str(value) for name, value in dataclasses.asdict(self).items()}
        return {SYNTHETIC: "true", **parts}


def write_image(
    path: str | Path,
    image: np.ndarray,
    provenance: Provenance,
    mask: np.ndarray | None = None,
    spacing: Sequence[float] | None = None,
) -> list[Path]:
    """Writes an image, and its label map beside it as `<name>_mask<suffix>`; the suffix chooses the format.

    Args:
        path: `.png` for 2-D uint8 and uint16 grey or uint8 RGB; `.nii` or `.nii.gz` for all; `.dcm` for uint8 and uint16
            grey and uint8 RGB, volumes as frames.
        image: [H, W, C] or [D, H, W, C], of a type that records have.
        provenance: what the file says of itself.
        mask: uint8 or uint16 of the image's size.
        spacing: millimetres (row, column) or (slice, row, column).

    Returns:
        The paths written. NIfTI files have a `.json` beside them.

    Raises:
        DataError: the format is not known or cannot hold the image, or the mask is of another size. OSError: the disk is full.
    """
    path = Path(path)
    writer = next((write for suffix, write in _WRITERS.items() if path.name.lower().endswith(suffix)), None)
    if writer is None:
        raise DataError(f"{path}: cannot write this format; allowed: {', '.join(_WRITERS)}")
    if image.ndim not in (3, 4) or image.size == 0 or image.dtype.name not in IMAGE_TYPES:
        raise DataError(f"{path}: image of shape {image.shape} and type {image.dtype}, expected [H, W, C] or [D, H, W, C]")
    if spacing is not None and len(spacing) != image.ndim - 1:
        raise DataError(f"{path}: spacing of {len(spacing)} numbers for an image of {image.ndim - 1} axes")
    if mask is not None and (mask.shape != image.shape[:-1] or mask.dtype.name not in MASK_TYPES):
        raise DataError(f"{path}: mask of shape {mask.shape} and type {mask.dtype}, the image has {image.shape[:-1]}")
    written = writer(path, image, provenance, spacing, "image")
    if mask is not None:
        suffix = path.name[len(_stem(path)) :]
        beside = path.with_name(f"{_stem(path)}_mask{suffix}")
        written += writer(beside, mask[..., np.newaxis], provenance, spacing, "label map")
    return written


def _stem(path: Path) -> str:
    suffix = next(suffix for suffix in _WRITERS if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]


def _write_png(path: Path, image: np.ndarray, provenance: Provenance, spacing: Sequence[float] | None, what: str) -> list[Path]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    _refuse_unless(path, image, "PNG", image.ndim == 3)
    text = PngInfo()
    for name, value in {**provenance.fields(), "Description": f"{provenance.text()} ({what})"}.items():
        text.add_text(name, value)
    grey = image[..., 0] if image.shape[-1] == 1 else image
    resolution = {} if spacing is None else {"dpi": (25.4 / spacing[1], 25.4 / spacing[0])}
    with replacing_file(path) as temporary:
        Image.fromarray(np.ascontiguousarray(grey)).save(temporary, format="PNG", pnginfo=text, **resolution)
    return [path]


def _write_nifti(
    path: Path, image: np.ndarray, provenance: Provenance, spacing: Sequence[float] | None, what: str
) -> list[Path]:
    import nibabel

    volume = image if image.ndim == 4 else image[np.newaxis]
    sizes = [1.0] * 3 if spacing is None else [1.0, *spacing][-3:]
    values = np.transpose(volume, (2, 1, 0, 3))  # (z, y, x, channel) → (x, y, z, channel), as the reader turns it back
    values = values[..., 0] if values.shape[-1] == 1 else values
    nifti = nibabel.Nifti1Image(values, np.diag([*sizes[::-1], 1.0]), dtype=values.dtype)
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = f"{SYNTHETIC} {provenance.model} v{provenance.version} seed {provenance.seed}".encode()[:79]
    sidecar = path.with_name(f"{_stem(path)}.json")
    with replacing_file(path) as temporary:
        temporary.write_bytes(_nifti_bytes(nifti, path.name.lower().endswith(".gz")))
        fields = {SYNTHETIC: True, "Description": provenance.text(), "Content": what, **dataclasses.asdict(provenance)}
        write_text(sidecar, json.dumps(fields, indent=1) + "\n")  # before the image gets its name: none is ever without
    return [path, sidecar]


def _nifti_bytes(nifti: Any, compressed: bool) -> bytes:
    import gzip

    return gzip.compress(nifti.to_bytes(), compresslevel=6, mtime=0) if compressed else nifti.to_bytes()


def _write_dicom(
    path: Path, image: np.ndarray, provenance: Provenance, spacing: Sequence[float] | None, what: str
) -> list[Path]:
    from medsynth_tf.data.dicom_writer import secondary_capture

    _refuse_unless(path, image, "DICOM Secondary Capture", True)
    dataset = secondary_capture(image, provenance, spacing, what)
    with replacing_file(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return [path]


def _refuse_unless(path: Path, image: np.ndarray, what: str, rank_allowed: bool) -> None:
    """PNG and Secondary Capture hold the same kinds of pixels."""
    kind = (image.dtype.name, image.shape[-1])
    if not rank_allowed or kind not in (("uint8", 1), ("uint16", 1), ("uint8", 3)):
        raise DataError(
            f"{path}: {what} cannot hold {image.dtype} of shape {image.shape}; "
            "uint8 of 1 or 3 channels and uint16 of 1 can be held, NIfTI holds all"
        )


_WRITERS = {".png": _write_png, ".nii.gz": _write_nifti, ".nii": _write_nifti, ".dcm": _write_dicom}
