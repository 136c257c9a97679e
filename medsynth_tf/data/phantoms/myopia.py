"""Parapapillary atrophy of pathological myopia: a pale, ragged crescent around the optic disc, widest towards the fovea.

Grading follows the META-PM scale in kind only (Ohno-Matsui et al., Am J Ophthalmol 2015): an eye has such an atrophy or it has none.
"""

from __future__ import annotations

import dataclasses

import numpy as np

COLOUR = (0.97, 0.86, 0.66)
_HARMONICS = np.arange(2, 6)


@dataclasses.dataclass(frozen=True)
class Atrophy:
    """An ellipse around a point beside the disc, its outline ragged.

    Attributes:
        centre: float64 [2], (x, y) in diameters of the field of view.
        radii: float64 [2], along the line from disc to fovea and across it, in diameters.
        turn: direction of that line, radians.
        strengths, phases: float64 [4], of the outline's harmonics 2 to 5.
    """

    centre: np.ndarray
    radii: np.ndarray
    turn: float
    strengths: np.ndarray
    phases: np.ndarray

    def level(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from the centre over the outline's there: below 1 inside. float32, the shape of `x` and `y` (in diameters)."""
        dx, dy = x - np.float32(self.centre[0]), y - np.float32(self.centre[1])
        cosine, sine = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        along, across = (cosine * dx + sine * dy) / self.radii[0], (cosine * dy - sine * dx) / self.radii[1]
        angle = np.arctan2(across, along)
        outline = np.ones_like(angle)
        for harmonic, strength, phase in zip(_HARMONICS, self.strengths, self.phases):
            outline += np.float32(strength) * np.cos(harmonic * angle + np.float32(phase))
        return (np.hypot(along, across) / outline).astype(np.float32)


def draw_atrophy(rng: np.random.Generator, disc: np.ndarray, fovea: np.ndarray, disc_radius: float) -> Atrophy:
    """An atrophy that holds the disc's rim on the fovea's side and reaches beyond it by half a disc radius or more."""
    towards = (fovea - disc) / np.linalg.norm(fovea - disc)
    reach = rng.uniform(1.5, 2.3)
    return Atrophy(
        centre=disc + towards * disc_radius * rng.uniform(0.35, 0.7),
        radii=disc_radius * np.array([reach, reach * rng.uniform(0.85, 1.15)]),
        turn=float(np.arctan2(towards[1], towards[0])),
        strengths=rng.uniform(0.0, 0.06, len(_HARMONICS)),
        phases=rng.uniform(0, 2 * np.pi, len(_HARMONICS)),
    )
