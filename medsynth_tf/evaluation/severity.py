"""Whether what is made for a higher grade shows more disease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed

NOT_LESIONS = frozenset({"retina", "optic_disc", "vessel"})
MAPS_A_GRADE = 16


def lesion_codes(labels: Sequence[str]) -> list[int]:
    """Codes of the label names that are lesions: all but retina, optic disc and vessels."""
    return [code for code, name in enumerate(labels) if name not in NOT_LESIONS]


def lesion_shares(label_maps: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """Share of the field of view that lesions cover in each map, float64 [N].

    Args:
        label_maps: uint8 [N, H, W]; 255 is outside the field of view.
        codes: of lesions.
    """
    inside = (label_maps != 255).sum((1, 2))
    return np.isin(label_maps, list(codes)).sum((1, 2)) / np.maximum(inside, 1)


def severity_by_grade(
    generate: Callable[[np.ndarray, np.ndarray], np.ndarray], grades: int, codes: Sequence[int], seed: int = 0
) -> tuple[dict[str, Any], np.ndarray]:
    """Makes label maps of every grade and measures their lesions.

    Args:
        generate: (grade int32 [N], seed int64 [N]) → label maps uint8 [N, H, W].
        grades: how many there are, at least 2.
        codes: of lesions.
        seed: of the maps' seeds, which are the same for every grade.

    Returns:
        {"lesion_share_by_grade": mean share of each grade, "rank_correlation": Spearman's ρ of grade and that mean; None where no
        share differs from another}, and the maps uint8 [grades, MAPS_A_GRADE, H, W].

    Raises:
        DataError: fewer than two grades, or no lesion among the labels.
    """
    if grades < 2 or not codes:
        raise DataError(
            f"severity by grade needs two grades or more and a lesion among the labels; there are {grades} and {codes}"
        )
    seeds = np.array([derive_seed(seed, "severity", i) for i in range(MAPS_A_GRADE)], np.int64)
    maps = np.stack([generate(np.full(len(seeds), grade, np.int32), seeds) for grade in range(grades)])
    shares = [float(lesion_shares(of_grade, codes).mean()) for of_grade in maps]
    correlation = None
    if len(set(shares)) > 1:  # rounded: one swap of five is 0.9, which a gate of 0.9 must not miss by the last bit
        correlation = round(float(stats.spearmanr(np.arange(grades), shares).statistic), 12)
    return {"lesion_share_by_grade": shares, "rank_correlation": correlation}, maps
