"""Agreement of two segmentations of the same scans: Dice by case, significance, Bland–Altman (arXiv:2107.08543, section 2.4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from medsynth_tf.core.errors import DataError


@dataclasses.dataclass(frozen=True)
class CaseDice:
    """Dice of cases, of which those with two empty masks are set apart: they would reward a network that finds nothing.

    Attributes:
        values: float64 [N], NaN where both masks are empty.
    """

    values: np.ndarray

    @classmethod
    def of(cls, cases: list[tuple[np.ndarray, np.ndarray]]) -> CaseDice:
        """From pairs of bool masks of any shape, each pair of one shape.

        Raises:
            DataError: a pair differs in shape, or a mask is not bool.
        """
        values = []
        for first, second in cases:
            if first.shape != second.shape or first.dtype != bool or second.dtype != bool:
                raise DataError(f"masks {first.dtype} {first.shape}, {second.dtype} {second.shape}: expected bool of one shape")
            total = int(first.sum()) + int(second.sum())
            values.append(2.0 * int((first & second).sum()) / total if total else np.nan)
        return cls(np.array(values, np.float64))

    def filled(self, empty: float) -> np.ndarray:
        """The values with `empty` (1 by the usual convention, 0 by the strict one) for cases where both are empty, [N]."""
        return np.where(np.isnan(self.values), empty, self.values)

    def summary(self) -> dict[str, Any]:
        """`mean` and `std` of cases that are not empty twice (None without any), their `cases`, `both_empty`, and `mean_strict`: over
        all cases, those counting 0."""
        kept = self.values[~np.isnan(self.values)]
        return {
            "mean": float(kept.mean()) if len(kept) else None,
            "std": float(kept.std()) if len(kept) else None,
            "cases": len(kept),
            "both_empty": len(self.values) - len(kept),
            "mean_strict": float(self.filled(0.0).mean()) if len(self.values) else None,
        }


def one_sided_wilcoxon(
    scores: Mapping[str, np.ndarray], method: str, comparisons: int | None = None
) -> dict[str, dict[str, float]]:
    """Whether `method` scores higher than each of the others on the same cases: Wilcoxon's signed-rank test, Bonferroni-corrected.

    Args:
        scores: per method [N], case by case; no NaN.
        method: one of them.
        comparisons: to correct for; default: as many as there are other methods.

    Returns:
        Other method → {"p": one-sided, "p_bonferroni": times the comparisons, at most 1}. Equal scores throughout give 1.

    Raises:
        DataError: the method is not there, the numbers of cases differ, or there are none.
    """
    if method not in scores or len({len(values) for values in scores.values()}) != 1 or not len(scores[method]):
        raise DataError(f"cannot compare '{method}' with {sorted(scores)}: each needs the score of every one of the same cases")
    others = [name for name in scores if name != method]
    result = {}
    for name in others:
        difference = np.asarray(scores[method]) - np.asarray(scores[name])
        p = float(stats.wilcoxon(difference, alternative="greater").pvalue) if difference.any() else 1.0
        result[name] = {"p": p, "p_bonferroni": min(1.0, p * (comparisons or len(others)))}
    return result


def bland_altman(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Of volumes measured twice: first - second against their mean (Bland and Altman, 1986).

    Returns:
        {"mean": [N], "difference": [N] as lists, "bias": mean difference, "lower", "upper": bias ∓ 1.96 standard deviations}; of one
        case the limits are the bias.

    Raises:
        DataError: lengths differ, or there is nothing.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise DataError(f"volumes {first.shape} and {second.shape}: expected one number a case, of at least one case")
    difference = first - second
    bias = float(difference.mean())
    spread = 1.96 * float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return {
        "mean": ((first + second) / 2).tolist(),
        "difference": difference.tolist(),
        "bias": bias,
        "lower": bias - spread,
        "upper": bias + spread,
    }
