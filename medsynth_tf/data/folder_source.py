"""`folder:PATH`: images in a folder, found through a manifest or the folder's layout."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.names import look_up
from medsynth_tf.data.entries import Entry
from medsynth_tf.data.layouts import LAYOUTS
from medsynth_tf.data.manifest import MANIFEST_NAMES, read_manifest
from medsynth_tf.data.readers import image_format, read_image
from medsynth_tf.data.readers.dicom import read_patient_id
from medsynth_tf.data.readers.dicom_series import read_series, series_files, series_header
from medsynth_tf.data.records import OPTIONAL, Record, validate
from medsynth_tf.data.source import RecordKey, Source


class FolderSource(Source):
    """Images, and their masks and labels, in a folder.

    Args:
        path: the folder.
        layout: a name in `layouts.LAYOUTS`; default: `manifest.csv` or `manifest.json` where there is one, else the first
            layout that recognises the folder.
        manifest: a manifest elsewhere than in the folder; goes before any layout.
        patient: where patient ids come from when no table gives them: `header`, the DICOM header, else each image is a
            patient of its own; or `folder`, the first folder below `path`.
        masks: `labels`, mask values are labels as they are; or `binary`, all but 0 are label 1 (for 0/255 masks).

    Raises:
        DataError: the folder does not exist. UnknownNameError: no such layout.
    """

    def __init__(
        self,
        path: str | Path,
        layout: str | None = None,
        manifest: str | Path | None = None,
        patient: Literal["header", "folder"] = "header",
        masks: Literal["labels", "binary"] = "labels",
    ):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{self.path}: no such folder")
        for name, value, allowed in (("patient", patient, ("header", "folder")), ("masks", masks, ("labels", "binary"))):
            if value not in allowed:
                raise DataError(f"folder source: {name} = {value!r}, allowed: {', '.join(allowed)}")
        self._patient, self._masks = patient, masks
        if manifest is None and layout is None:
            manifest = next((self.path / name for name in MANIFEST_NAMES if (self.path / name).is_file()), None)
        self.manifest = Path(manifest) if manifest is not None else None
        if layout is not None:
            look_up(LAYOUTS, layout, "layout")
        elif self.manifest is None:
            layout = next(name for name, candidate in LAYOUTS.items() if candidate.recognises(self.path))
        self.layout = layout

    @functools.cached_property
    def _entries(self) -> dict[str, Entry]:
        if self.manifest is not None:
            entries = read_manifest(self.manifest)
        else:
            assert self.layout is not None
            entries = LAYOUTS[self.layout].entries(self.path)
        if not entries:
            raise DataError(f"{self.path}: no images found (layout '{self.layout}')")
        return {entry.id: entry for entry in entries}

    @functools.cached_property
    def _headers(self) -> dict[str, dict[str, Any] | None]:
        """What files say beside their pixels, by id: empty for raster files, None for damaged ones."""
        return {identity: _header_entries(entry) for identity, entry in self._entries.items()}

    @functools.cached_property
    def _keys(self) -> list[RecordKey]:
        return [RecordKey(e.id, self._patient_of(e), e.split, e.label) for e in self._entries.values()]

    def _patient_of(self, entry: Entry) -> str:
        if entry.patient_id is not None:
            return entry.patient_id
        if self._patient == "folder":
            parts = entry.image[0].relative_to(self.path).parts
            return parts[0] if len(parts) > 1 else entry.id
        return _patient_in_header(entry) or entry.id

    def keys(self) -> list[RecordKey]:
        """See `Source.keys`; headers of DICOM files are read where no table gives patient ids."""
        return list(self._keys)

    def files(self, key: RecordKey) -> tuple[Path, ...]:
        """The files of a record: image or slices, then masks.

        Raises:
            DataError: no such record.
        """
        entry = self._entry(key)
        return (*entry.image, *entry.masks)

    def _entry(self, key: RecordKey) -> Entry:
        if key.id not in self._entries:
            raise DataError(f"{self.path}: no record '{key.id}'")
        return self._entries[key.id]

    def read(self, key: RecordKey) -> Record:
        """See `Source.read`."""
        entry = self._entry(key)
        found = read_image(entry.image[0]) if len(entry.image) == 1 else read_series(entry.image)
        record: Record = {**found, "id": entry.id, "patient_id": key.patient_id}
        if entry.masks:
            mask = entry.compose_mask(entry.masks)
            if self._masks == "binary":
                mask = (mask > 0).astype(np.uint8)
            if mask.shape == (1, *record["image"].shape[:-1]):  # a NIfTI mask of one slice for a 2-D image
                mask = mask[0]
            record["mask"] = mask
        for name, dtype in (
            ("spacing", np.float32),
            ("landmarks", np.float32),
            ("boxes", np.float32),
            ("box_labels", np.int64),
        ):
            if getattr(entry, name) is not None:
                record[name] = np.asarray(getattr(entry, name), dtype).reshape(_shape(name, entry, record))
        for name in ("label", "modality"):
            if getattr(entry, name) is not None:
                record[name] = getattr(entry, name)
        validate(record, str(entry.image[0]))
        return record

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """See `Source.optional_names`; headers alone are read."""
        common = frozenset(OPTIONAL)
        for key in keys:
            entry = self._entry(key)
            named = {name for name in OPTIONAL if getattr(entry, name, None) is not None}
            header = self._headers[entry.id]
            if header is None:  # damaged: it is refused when read, and says nothing of the others
                continue
            common &= named | frozenset(header) | ({"mask"} if entry.masks else frozenset())
        return common

    def digest(self, key: RecordKey) -> str:
        """sha256 over the record's files and what the manifest says of it."""
        entry = self._entry(key)
        total = hashlib.sha256()
        for path in self.files(key):
            try:
                total.update(path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        known = (entry.label, entry.spacing, entry.modality, entry.landmarks, entry.boxes, entry.box_labels, self._masks)
        total.update(repr(known).encode())
        return total.hexdigest()

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`; `with` counts the records that have each optional part."""
        entries = self._entries.values()
        parts: dict[str, list[Any]] = {"mask": [e.masks or None for e in entries], "label": [e.label for e in entries]}
        parts |= {"landmarks": [e.landmarks for e in entries], "boxes": [e.boxes for e in entries]}
        return {
            "kind": "folder",
            "path": str(self.path),
            "layout": self.layout if self.manifest is None else "manifest",
            "manifest": None if self.manifest is None else str(self.manifest),
            "patient": self._patient,
            "masks": self._masks,
            "count": len(entries),
            "with": {name: sum(value is not None for value in values) for name, values in parts.items()},
        }


def _shape(name: str, entry: Entry, record: Record) -> tuple[int, ...]:
    """Of landmarks and boxes, which keep two axes where there are none; of others what they are."""
    dimensions, count = record["image"].ndim - 1, len(getattr(entry, name))
    width = {"landmarks": dimensions, "boxes": 2 * dimensions}.get(name)
    return (count,) if width is None else (count, width if not count else len(getattr(entry, name)[0]))


def _is_dicom(entry: Entry) -> bool:
    return entry.image[0].is_dir() or len(entry.image) > 1 or image_format(entry.image[0]) == "dicom"


def _slices(entry: Entry) -> tuple[Path, ...]:
    return series_files(entry.image[0]) if entry.image[0].is_dir() else entry.image


def _patient_in_header(entry: Entry) -> str:
    """Empty where the files say none, or are damaged: that is reported when the record is read."""
    try:
        return read_patient_id(_slices(entry)[0]) if _is_dicom(entry) else ""
    except DataError:
        return ""


def _header_entries(entry: Entry) -> dict[str, Any] | None:
    """What the image file gives beside pixels, read from its header; None where that is damaged."""
    try:
        if _is_dicom(entry):
            return series_header(_slices(entry)).entries()
        return {"spacing": None} if image_format(entry.image[0]) == "nifti" else {}
    except DataError:
        return None
