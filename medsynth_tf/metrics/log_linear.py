"""How a score grows with annotation: f = α_a ln n_a + α_t ln n_t + β by least squares, and whether each slope is there."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

from medsynth_tf.core.errors import DataError


@dataclasses.dataclass(frozen=True)
class FTest:
    """Of the full model against one without some of its slopes.

    Attributes:
        f: the statistic.
        p: probability of one as large if those slopes are 0.
        degrees: of freedom, numerator and denominator.
    """

    f: float
    p: float
    degrees: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class LogLinearFit:
    """The fit and its tests: against α_a = 0, against α_t = 0, against both."""

    alpha_a: float
    alpha_t: float
    beta: float
    without_a: FTest
    without_t: FTest
    without_both: FTest


def f_test(f: float, numerator: int, denominator: int) -> FTest:
    """The p of an F statistic."""
    return FTest(float(f), float(stats.f.sf(f, numerator, denominator)), (numerator, denominator))


def fit_log_linear(annotation_planes: np.ndarray, training_planes: np.ndarray, scores: np.ndarray) -> LogLinearFit:
    """Laprade, Perslev, Sporring 2021, eq. 1, with natural logarithms; runs with n_t = 0 are not of this model.

    Args:
        annotation_planes: n_a of each run, [N], above 0.
        training_planes: n_t of each run, [N], above 0.
        scores: Dice of each run, or another measure, [N].

    Raises:
        DataError: lengths differ, a number is not above 0, there are fewer than four runs, or all have one n_a or one n_t.
    """
    n_a, n_t, y = (np.asarray(values, np.float64).ravel() for values in (annotation_planes, training_planes, scores))
    if not len(n_a) == len(n_t) == len(y) or len(y) < 4:
        raise DataError(
            f"log-linear fit of {len(n_a)}, {len(n_t)} and {len(y)} numbers: expected three of one length, at least 4"
        )
    if (n_a <= 0).any() or (n_t <= 0).any() or not np.isfinite(y).all():
        raise DataError("log-linear fit: numbers of planes must be above 0 (leave out runs with n_t = 0), and scores finite")
    columns = np.stack([np.log(n_a), np.log(n_t), np.ones_like(y)], axis=1)
    if np.linalg.matrix_rank(columns) < 3:
        raise DataError("log-linear fit: n_a and n_t must both vary, and not together")
    slopes, full = _least_squares(columns, y)
    freedom = len(y) - 3

    def against(kept: list[int]) -> FTest:
        dropped = 3 - len(kept)
        _, reduced = _least_squares(columns[:, kept], y)
        return f_test((reduced - full) / dropped / (full / freedom), dropped, freedom)

    alpha_a, alpha_t, beta = map(float, slopes)
    return LogLinearFit(alpha_a, alpha_t, beta, against([1, 2]), against([0, 2]), against([2]))


def _least_squares(columns: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients, and the sum of squared residuals."""
    found = np.linalg.lstsq(columns, y, rcond=None)[0]
    return found, float(((y - columns @ found) ** 2).sum())
