"""`skimage:` sources: the fundus photograph that comes inside the scikit-image package, cut into overlapping patches.

The photograph is shrunk to four patches across, so that a patch shows a quarter of the retina's width and vessels of one to
eight pixels, and labelled by the fixed filters of `medsynth_tf.data.fundus`. There is one photograph only, so the three splits
are three regions of it: the left 11/16 train, and of the strip to the right the upper half validates and the lower half tests.
A patch that reaches over a region's edge is dropped, so that no pixel is in two splits; a region counts as a
patient. What is measured on such splits says how a method does on this eye, not on another.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from skimage import data, transform

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.names import look_up, suggestion
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data import fundus
from medsynth_tf.data.records import Record
from medsynth_tf.data.source import RecordKey, Source

RETINA, VESSEL, BRIGHT_LESION, OUTSIDE = 0, 1, 2, 255
PATCHES_ACROSS = 4
LEAST_INSIDE = 0.6  # patches with a smaller share of retina than this are dropped

# Region: split, and rows and columns as shares of the photograph.
_REGIONS = {
    "left": ("train", (0.0, 1.0), (0.0, 11 / 16)),
    "upper-right": ("val", (0.0, 0.5), (11 / 16, 1.0)),
    "lower-right": ("test", (0.5, 1.0), (11 / 16, 1.0)),
}
_PHOTOGRAPHS = {"retina": data.retina}


@dataclasses.dataclass(frozen=True)
class SkimageOptions(Settings):
    """Options of a `skimage:` source."""

    size: int = setting(
        128, help="side of a patch in pixels; the photograph is shrunk to four of them", minimum=32, maximum=352
    )
    stride: int | None = setting(None, help="pixels from patch to patch; default: an eighth of the size", minimum=1)


class SkimageSource(Source):
    """Patches of a photograph from scikit-image with label maps 0 retina, 1 vessel, 2 bright lesion, 255 outside.

    Args:
        name: the photograph; `retina` is the one there is.
        size: side of a patch in pixels; the photograph is shrunk to four of them.
        stride: pixels from patch to patch; an eighth of the size if None.

    A record has `image` uint8 [size, size, 3], `mask` uint8 [size, size], `modality` OP, and ids that tell the patch's place.

    Raises:
        UnknownNameError: no such photograph. ConfigError: an option is out of range. DataError: from `read`, no such record.
    """

    def __init__(self, name: str = "retina", size: int = 128, stride: int | None = None):
        look_up(_PHOTOGRAPHS, name, "photograph of scikit-image")
        self.name = name
        self.options = SkimageOptions(size, stride)
        self.stride = self.options.stride or self.options.size // 8

    @property
    def field_of_view_diameter(self) -> float:
        """Pixels across the whole photograph's field of view at the patches' scale, for the filters of `fundus`."""
        return float(max(self._inside.any(0).sum(), self._inside.any(1).sum()))

    def keys(self) -> list[RecordKey]:
        """The patches, region by region, row by row."""
        return [key for key, _, _ in self._patches.values()]

    def read(self, key: RecordKey) -> Record:
        """The patch as a record."""
        if key.id not in self._patches:
            raise DataError(f"skimage:{self.name} has no record '{key.id}'" + suggestion(key.id, self._patches))
        key, row, column = self._patches[key.id]
        window = np.s_[row : row + self.options.size, column : column + self.options.size]
        return {
            "id": key.id,
            "patient_id": key.patient_id,
            "image": self._photograph[window].copy(),
            "mask": self._label_map[window].copy(),
            "modality": "OP",
        }

    def describe(self) -> dict[str, Any]:
        """Kind, count, options, label values and the scale of the patches."""
        return {
            "kind": "skimage",
            "name": self.name,
            "count": len(self._patches),
            "size": self.options.size,
            "stride": self.stride,
            "field_of_view_diameter": self.field_of_view_diameter,
            "labels": {"retina": RETINA, "vessel": VESSEL, "bright lesion": BRIGHT_LESION, "outside": OUTSIDE},
        }

    @functools.cached_property
    def _photograph(self) -> np.ndarray:
        side = PATCHES_ACROSS * self.options.size
        shrunk = transform.resize(_PHOTOGRAPHS[self.name](), (side, side), anti_aliasing=True, preserve_range=True)
        return np.clip(np.rint(shrunk), 0, 255).astype(np.uint8)

    @functools.cached_property
    def _inside(self) -> np.ndarray:
        return fundus.field_of_view(self._photograph)

    @functools.cached_property
    def _label_map(self) -> np.ndarray:
        labels = np.where(self._inside, np.uint8(RETINA), np.uint8(OUTSIDE))
        labels[fundus.segment_bright_lesions(self._photograph, self._inside)] = BRIGHT_LESION
        labels[fundus.segment_vessels(self._photograph, self._inside)] = VESSEL
        return labels

    @functools.cached_property
    def _patches(self) -> dict[str, tuple[RecordKey, int, int]]:
        """Each patch's key and upper left corner, by id."""
        size, side = self.options.size, PATCHES_ACROSS * self.options.size
        patches = {}
        for region, (split, rows, columns) in _REGIONS.items():
            top, bottom, left, right = (round(share * side) for share in (*rows, *columns))
            for row in range(top, bottom - size + 1, self.stride):
                for column in range(left, right - size + 1, self.stride):
                    if self._inside[row : row + size, column : column + size].mean() >= LEAST_INSIDE:
                        name = f"{self.name}-r{row:04d}-c{column:04d}"
                        key = RecordKey(id=name, patient_id=f"{self.name}-{region}", split=split, label=None)
                        patches[name] = (key, row, column)
        return patches
