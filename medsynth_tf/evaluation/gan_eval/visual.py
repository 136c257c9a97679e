"""The visual layer: test images of all generators in the plane of the real images' first two principal components, with ellipses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import orthogonal_procrustes

from medsynth_tf.core.errors import DataError


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """One standard deviation of points in a plane.

    Attributes:
        centre: their mean, [2].
        axes: rows are unit vectors, the longer axis first, [2, 2].
        lengths: standard deviations along them, [2].
    """

    centre: np.ndarray
    axes: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray) -> Ellipse:
        """That of points [N, 2], N at least 2: eigenvectors and roots of the eigenvalues of their covariance."""
        values, vectors = np.linalg.eigh(np.cov(points, rowvar=False))
        return cls(points.mean(0), vectors.T[::-1], np.sqrt(np.maximum(values[::-1], 0.0)))

    @property
    def covariance(self) -> np.ndarray:
        """[2, 2]."""
        return self.axes.T @ np.diag(self.lengths**2) @ self.axes


@dataclasses.dataclass(frozen=True)
class Projection:
    """A generator's picture.

    Attributes:
        real: RTs as this generator's evaluator sees them, [M, 2].
        synthetic: STs, [N, 2].
    """

    real: np.ndarray
    synthetic: np.ndarray

    def summary(self) -> dict[str, object]:
        """Both ellipses as plain values, the distance of their centres, and Bhattacharyya's distance of the two Gaussians."""
        found: dict[str, object] = {}
        ellipses = {name: Ellipse.of(points) for name, points in (("real", self.real), ("synthetic", self.synthetic))}
        for name, ellipse in ellipses.items():
            found[name] = {part: getattr(ellipse, part).tolist() for part in ("centre", "axes", "lengths")}
        real, synthetic = ellipses["real"], ellipses["synthetic"]
        found["centre_distance"] = float(np.linalg.norm(real.centre - synthetic.centre))
        found["bhattacharyya"] = bhattacharyya(real, synthetic)
        return found


def bhattacharyya(first: Ellipse, second: Ellipse) -> float | None:
    """⅛ δᵀ Σ⁻¹ δ + ½ ln(|Σ| / √(|Σ₁| |Σ₂|)) with Σ = (Σ₁ + Σ₂)/2: 0 for equal ellipses; None where one has no area."""
    determinants = [np.linalg.det(each.covariance) for each in (first, second)]
    mean = (first.covariance + second.covariance) / 2
    if min(determinants) <= 0.0 or np.linalg.matrix_rank(mean) < 2:
        return None
    gap = first.centre - second.centre
    spread = 0.5 * np.log(np.linalg.det(mean) / np.sqrt(determinants[0] * determinants[1]))
    return float(gap @ np.linalg.solve(mean, gap) / 8 + spread)


class PrincipalPlane:
    """The first two principal components of a set of features.

    Args:
        features: [N, F], N and F at least 2.

    Raises:
        DataError: fewer of either.
    """

    def __init__(self, features: np.ndarray):
        if features.ndim != 2 or min(features.shape) < 2:
            raise DataError(f"principal components need 2 vectors of 2 features or more, got {list(features.shape)}")
        self.mean = features.mean(0, dtype=np.float64)
        self.components = np.linalg.svd(features - self.mean, full_matrices=False)[2][:2]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[N, F] → [N, 2]."""
        return (features - self.mean) @ self.components.T


def project(features: Mapping[str, tuple[np.ndarray, np.ndarray]], align: bool = False) -> dict[str, Projection]:
    """All generators in one plane: that of R̄, the mean over evaluators of the features of the same real images.

    Args:
        features: generator → (features of RTs, features of STs), each by its own evaluator.
        align: turn each evaluator's features onto the first one's, by which their mean becomes more than a reference for a plot: units
            of different networks do not correspond.
    """
    sets: Sequence[tuple[np.ndarray, np.ndarray]] = list(features.values())
    if align:
        first = sets[0][0]
        turned = []
        for real, synthetic in sets:
            rotation = orthogonal_procrustes(real - real.mean(0), first - first.mean(0))[0]
            turned.append(tuple((each - real.mean(0)) @ rotation + first.mean(0) for each in (real, synthetic)))
        sets = turned
    plane = PrincipalPlane(np.mean([real for real, _ in sets], axis=0))
    return {name: Projection(plane(real), plane(synthetic)) for name, (real, synthetic) in zip(features, sets)}
