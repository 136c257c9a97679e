"""Do images and masks that were made together belong together?"""

from __future__ import annotations

import dataclasses

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.overlap import dice


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Mean Dice of masks with what is found in the images.

    Attributes:
        paired: each mask with its own image.
        shuffled: with images of others, which is what unrelated masks would give.
    """

    paired: float
    shuffled: float

    @property
    def margin(self) -> float:
        """By how much a mask fits its own image better than others."""
        return self.paired - self.shuffled


def pairing(found: np.ndarray, masks: np.ndarray, rolls: int = 8) -> Pairing:
    """Compares what a segmenter finds in images with the masks that came with them.

    A pair whose mask and finding are both empty counts 0, so that a model that makes neither gets nothing for it.

    Args:
        found: bool [N, H, W], by a segmenter that saw the images alone.
        masks: bool [N, H, W].
        rolls: the masks are moved on by 1 … `rolls` images for the shuffled score; N must be larger.

    Raises:
        DataError: shapes differ, arrays are not bool, or there are too few images.
    """
    if len(masks) <= rolls:
        raise DataError(f"pairing of {len(masks)} images: at least {rolls + 1} are needed for {rolls} rolls")

    def score(other: np.ndarray) -> float:
        values = dice(found, other)
        return float(np.where(other.any(axis=(1, 2)) | found.any(axis=(1, 2)), values, 0.0).mean())

    return Pairing(score(masks), float(np.mean([score(np.roll(masks, shift, axis=0)) for shift in range(1, rolls + 1)])))
