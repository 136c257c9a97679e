"""NIfTI-1 and -2 (and Analyze pairs) through nibabel."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers.common import check_size, narrowed, one_line, opened, stored_type

_MILLIMETRES = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}


def read_nifti(path: str | Path) -> dict[str, Any]:
    """Reads a volume in closest canonical orientation.

    The canonical array of nibabel runs (x to the Right, y to Anterior, z to Superior). Ours is its transpose,
    [D, H, W, C] = (z, y, x, channel): slice 0 is the lowest, row 0 the most posterior, column 0 the leftmost. The turn is by
    swaps and flips of axes alone, so no value is interpolated. The fourth axis (time, diffusion direction), a vector fifth
    one and RGB become channels. Slope and intercept of the header are applied: integers that a whole slope keeps whole
    stay integers, others become float32. A 2-D file becomes a volume of one slice.

    Returns:
        `image` [D, H, W, C] and `spacing` float32 [3], millimetres, (z, y, x).

    Raises:
        DataError: the file is damaged, has fewer than two axes, or holds NaN or infinite values (counted).
    """
    import nibabel

    path = Path(path)
    with opened(path):  # says missing and unreadable files in our words
        pass
    try:
        volume: Any = nibabel.load(path)
        check_size(volume.shape, path)
        if len(volume.shape) < 2:
            raise DataError(f"{path}: {len(volume.shape)} axis is no image")
        values = _scaled(volume.dataobj, path)
        orientation = nibabel.io_orientation(volume.affine)
        zooms = np.asarray((*volume.header.get_zooms(), 1.0)[:3], np.float64)
        unit = volume.header.get_xyzt_units()[0] if hasattr(volume.header, "get_xyzt_units") else "unknown"
    except DataError:
        raise
    except nibabel.filebasedimages.ImageFileError as error:
        raise DataError(f"{path}: not a NIfTI file: {one_line(error)}") from error
    # nibabel and the decompressors raise these for damaged headers, short files and broken gzip streams.
    except (nibabel.spatialimages.HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged: {one_line(error)}") from error
    if not np.isfinite(orientation).all():
        raise DataError(f"{path}: the affine matrix is singular, so the axes have no direction")

    values = values.reshape(*values.shape[:2], values.shape[2] if values.ndim > 2 else 1, -1)
    canonical = nibabel.apply_orientation(values, orientation)
    spacing = np.empty(3, np.float32)
    spacing[orientation[:, 0].astype(int)] = zooms * _MILLIMETRES[unit]
    image = np.ascontiguousarray(np.transpose(canonical, (2, 1, 0, 3)))
    return {"image": stored_type(image, path), "spacing": np.ascontiguousarray(spacing[::-1])}


def _scaled(proxy: Any, path: Path) -> np.ndarray:
    """The values with slope and intercept applied, integers where nothing is lost by it."""
    values = np.asanyarray(proxy.get_unscaled())
    if values.dtype.names == ("R", "G", "B"):
        return np.stack([values[name] for name in values.dtype.names], axis=-1)
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path}: values of type {values.dtype} are no image; integers, floats and RGB are")
    slope, intercept = float(proxy.slope), float(proxy.inter)
    if (slope, intercept) == (1.0, 0.0):
        return values
    if values.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        return narrowed(values.astype(np.int64) * int(slope) + int(intercept), path)
    return values.astype(np.float64) * slope + intercept
