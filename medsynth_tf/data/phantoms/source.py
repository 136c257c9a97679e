"""`phantom:` sources: any drawing program as a source of records."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.core.names import look_up
from medsynth_tf.core.settings import Settings
from medsynth_tf.data.options import settings_from_options
from medsynth_tf.data.records import Record
from medsynth_tf.data.source import RecordKey, Source

# Module and class of each phantom; imported when asked for.
_PHANTOMS = {
    "brain_slices": ("medsynth_tf.data.phantoms.brain_slices", "BrainSlicesPhantom"),
    "capsules": ("medsynth_tf.data.phantoms.capsules", "CapsulesPhantom"),
    "cardiac_views": ("medsynth_tf.data.phantoms.cardiac_views", "CardiacViewsPhantom"),
    "cells": ("medsynth_tf.data.phantoms.cells", "CellsPhantom"),
    "exudates": ("medsynth_tf.data.phantoms.exudates", "ExudatePhantom"),
    "figure_panels": ("medsynth_tf.data.phantoms.figure_panels", "FigurePanelsPhantom"),
    "fundus": ("medsynth_tf.data.phantoms.fundus", "FundusPhantom"),
    "graded_lesions": ("medsynth_tf.data.phantoms.graded_lesions", "GradedLesionsPhantom"),
    "heads": ("medsynth_tf.data.phantoms.heads", "HeadsPhantom"),
    "lesion": ("medsynth_tf.data.phantoms.lesion", "LesionPhantom"),
    "optic_disc": ("medsynth_tf.data.phantoms.optic_disc", "OpticDiscPhantom"),
    "shapes": ("medsynth_tf.data.phantoms.shapes", "ShapesPhantom"),
    "thorax_ct": ("medsynth_tf.data.phantoms.thorax_ct", "ThoraxPhantom"),
    "ultrasound": ("medsynth_tf.data.phantoms.ultrasound", "UltrasoundPhantom"),
    "valve_landmarks": ("medsynth_tf.data.phantoms.valve_landmarks", "ValveLandmarksPhantom"),
    "vessel_classes": ("medsynth_tf.data.phantoms.vessel_classes", "VesselClassesPhantom"),
}


class Phantom(Protocol):
    """A drawing program. All that it says of image `index` depends on its options and `index` alone."""

    options_class: type[Settings]
    options: Any

    def patient(self, index: int) -> int:
        """Number of the patient whom the image shows."""

    def label(self, index: int) -> int | None:
        """The image's class or grade, without drawing it."""

    def draw(self, index: int) -> dict[str, Any]:
        """`image`, `mask` and what else a record of the image holds, without ids."""

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""


class PhantomSource(Source):
    """`count` images of a phantom.

    Args:
        name: the phantom, for example `fundus`.
        count: number of images; image i is the same whatever the count.
        **options: the phantom's own (size, seed, …).

    Raises:
        UnknownNameError: no such phantom. ConfigError: an option is unknown or out of range. DataError: from `read`, no such
            record.
    """

    def __init__(self, name: str, count: int = 64, **options: Any):
        module, class_name = look_up(_PHANTOMS, name, "phantom")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"phantom:{name}.count = {count!r}: must be an integer >= 1")
        phantom_class = getattr(importlib.import_module(module), class_name)
        self.name = name
        self.count = count
        self.phantom: Phantom = phantom_class(settings_from_options(phantom_class.options_class, options, f"phantom:{name}"))

    def keys(self) -> list[RecordKey]:
        """One key an image, in order; none names a split."""
        return [self._key(index) for index in range(self.count)]

    def read(self, key: RecordKey) -> Record:
        """The image of `key`, drawn anew."""
        prefix, _, digits = key.id.rpartition("-")
        if prefix != self.name or not digits.isdecimal() or int(digits) >= self.count:
            raise DataError(f"phantom:{self.name} of {self.count} images has no record '{key.id}'")
        index = int(digits)
        known = self._key(index)
        record: Record = {"id": known.id, "patient_id": known.patient_id, **self.phantom.draw(index)}
        if known.label is not None:
            record["label"] = known.label
        return record

    def describe(self) -> dict[str, Any]:
        """Kind, name, count, options and label values."""
        return {
            "kind": "phantom",
            "name": self.name,
            "count": self.count,
            **self.phantom.options.to_dict(),
            "labels": self.phantom.labels(),
        }

    def _key(self, index: int) -> RecordKey:
        return RecordKey(
            id=f"{self.name}-{index:06d}",
            patient_id=f"{self.name}-patient-{self.phantom.patient(index):06d}",
            split=None,
            label=self.phantom.label(index),
        )


def open_phantom(spec_path: str, options: Mapping[str, Any]) -> PhantomSource:
    """The source of the spec `phantom:SPEC_PATH?count=64&size=128&seed=0`; values may be strings, as they stand in the spec.

    Raises:
        UnknownNameError: no such phantom. ConfigError: an option is unknown or out of range.
    """
    values = dict(options)
    count = values.pop("count", 64)
    if isinstance(count, str) and count.isdigit():
        count = int(count)
    return PhantomSource(spec_path, count, **values)
