"""From stored grey values to the quantities that they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medsynth_tf.data.readers.common import integer_type


def inverted(stored: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """MONOCHROME1 values turned within the range of their stored bits, so that higher is brighter."""
    ends = -1 if signed else (1 << bits) - 1  # lowest plus highest stored value
    return (ends - stored.astype(np.int64)).astype(stored.dtype)


def rescaled(stored: np.ndarray, slope: float, intercept: float, path: Path) -> np.ndarray:
    """Stored values times slope plus intercept: integers where both are whole, else float32.

    Raises:
        DataError: integers beyond 32 bits.
    """
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if not (slope.is_integer() and intercept.is_integer()):
        return (stored * slope + intercept).astype(np.float32)
    # The range is known from the stored range, so that the sum can be made in the type it ends in: two passes, not six.
    low, high = sorted(int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max()))
    target = integer_type(low, high, path)
    values = stored.astype(target)  # may wrap, and wraps back below, as the result is known to fit
    if slope != 1.0:
        values *= np.array(int(slope)).astype(target)
    values += np.array(int(intercept)).astype(target)
    return values
