"""Label maps as one structure against the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsynth_tf.data.records import OUTSIDE


def binary_labels(mask: np.ndarray, foreground: Sequence[int] = ()) -> np.ndarray:
    """1 where the mask has a foreground code, 0 elsewhere, 255 where a uint8 mask says outside: uint8 of the mask's shape.

    Args:
        mask: uint8 or uint16, any shape.
        foreground: codes of the structure; none: every code but 0.
    """
    wanted = np.isin(mask, foreground) if foreground else mask > 0
    labels = wanted.astype(np.uint8)
    if mask.dtype == np.uint8:
        labels[mask == OUTSIDE] = OUTSIDE
    return labels
