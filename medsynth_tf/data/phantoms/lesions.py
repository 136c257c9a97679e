"""Lesions of diabetic retinopathy: what a grade holds, and where it lies.

The rule follows the International Clinical Diabetic Retinopathy scale (Wilkinson et al., Ophthalmology 2003):

| grade | name | findings |
|---|---|---|
| 0 | none | none |
| 1 | mild | microaneurysms only |
| 2 | moderate | more than microaneurysms, less than grade 3 |
| 3 | severe | more than 20 haemorrhages in each quadrant, or intraretinal microvascular abnormalities (IRMA); no new vessels |
| 4 | proliferative | new vessels (NV) |

The scale's third sign of grade 3, venous beading, is not drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np

RETINA, OD, MA, HE, EX, SE, NV, IRMA, BACKGROUND = 0, 1, 2, 3, 4, 5, 6, 7, 255
GRADES = 5
_REACH = 0.44  # lesions lie within this distance of the centre, in diameters of the field of view
_CIRCLE = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], -1)


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        kind: its label value, MA to IRMA.
        outline: float64 [N, 2], (x, y) in diameters of the field of view: a polygon, or for NV and IRMA a polyline.
        width: of the polyline, in diameters; 0 for polygons.
    """

    kind: int
    outline: np.ndarray
    width: float = 0.0


def icdr_grade(haemorrhages: tuple[int, int, int, int], microaneurysms: int, irma: int, new_vessels: int, others: int) -> int:
    """The grade that the table above gives.

    Args:
        haemorrhages: number in each quadrant around the fovea.
        microaneurysms: number of them.
        irma: number of IRMA.
        new_vessels: number of NV.
        others: number of hard and soft exudates.
    """
    if new_vessels:
        return 4
    if irma or min(haemorrhages) > 20:
        return 3
    if sum(haemorrhages) or others:
        return 2
    return 1 if microaneurysms else 0


def quadrant(point: np.ndarray, fovea: np.ndarray) -> int:
    """0 to 3: which quadrant around the fovea the point lies in."""
    return int(point[0] > fovea[0]) + 2 * int(point[1] > fovea[1])


def grade_of(lesions: list[Lesion], fovea: np.ndarray) -> int:
    """The grade of an eye with these lesions."""
    kinds = [lesion.kind for lesion in lesions]
    haemorrhages = [0, 0, 0, 0]
    for lesion in lesions:
        if lesion.kind == HE:
            haemorrhages[quadrant(lesion.outline.mean(0), fovea)] += 1
    first, second, third, fourth = haemorrhages
    return icdr_grade(
        (first, second, third, fourth), kinds.count(MA), kinds.count(IRMA), kinds.count(NV), kinds.count(EX) + kinds.count(SE)
    )


def draw_lesions(rng: np.random.Generator, grade: int, disc: np.ndarray, fovea: np.ndarray, disc_radius: float) -> list[Lesion]:
    """Lesions at random such that `grade_of` gives `grade`, in the label map's paint order (later ones cover earlier ones)."""
    if grade == 0:
        return []
    place = _Places(rng, disc, fovea, 1.5 * disc_radius)
    few = {1: (2, 9), 2: (4, 14), 3: (10, 26), 4: (5, 22)}[grade]
    microaneurysms = [_blob(rng, MA, centre, rng.uniform(0.0028, 0.0055)) for centre in place.anywhere(rng.integers(*few))]
    if grade == 1:
        return microaneurysms
    severe_by_irma = grade == 3 and rng.random() < 0.6
    if grade == 3 and not severe_by_irma:
        centres = np.concatenate([place.in_quadrant(rng.integers(21, 27), number) for number in range(4)])
    else:
        # Far from the more than 80 in all that would be grade 3.
        centres = place.anywhere(rng.integers(2, 16))
    haemorrhages = [_blob(rng, HE, centre, rng.lognormal(np.log(0.0085), 0.4), 0.35) for centre in centres]
    exudates = []
    for middle in place.anywhere(rng.integers(0, 4)):
        spread = rng.uniform(0.015, 0.045)
        for offset in rng.normal(0, spread, (rng.integers(4, 14), 2)):
            exudates.append(_blob(rng, EX, middle + offset, rng.lognormal(np.log(0.006), 0.4), 0.3))
    cotton_wool = [_blob(rng, SE, centre, rng.uniform(0.014, 0.026), 0.25) for centre in place.anywhere(rng.integers(0, 4))]
    lesions = exudates + haemorrhages + microaneurysms + cotton_wool
    if grade == 4:
        at_disc = disc + disc_radius * rng.normal(0, 0.4, 2)
        centres = np.concatenate([at_disc[None], place.anywhere(2)])[rng.permutation(3)[: rng.integers(1, 4)]]
        lesions += [_tuft(rng, NV, centre, rng.uniform(0.05, 0.09), 0.0045) for centre in centres]
    if severe_by_irma or (grade == 4 and rng.random() < 0.5):
        lesions += [_tuft(rng, IRMA, centre, rng.uniform(0.025, 0.045), 0.004) for centre in place.anywhere(rng.integers(1, 4))]
    return lesions


class _Places:
    """Points of the retina off the optic disc."""

    def __init__(self, rng: np.random.Generator, disc: np.ndarray, fovea: np.ndarray, margin: float):
        self.rng, self.disc, self.fovea, self.margin = rng, disc, fovea, margin

    def anywhere(self, count: int) -> np.ndarray:
        """float64 [count, 2], uniform."""
        return self._draw(count, lambda points: np.ones(len(points), bool))

    def in_quadrant(self, count: int, number: int) -> np.ndarray:
        """float64 [count, 2], uniform in a quadrant around the fovea and clear of its borders."""

        def inside(points: np.ndarray) -> np.ndarray:
            offset = points - self.fovea
            signs = np.array([1 if number & 1 else -1, 1 if number & 2 else -1])
            return (offset * signs > 0.01).all(-1)

        return self._draw(count, inside)

    def _draw(self, count: int, allowed) -> np.ndarray:
        found = np.zeros((0, 2))
        while len(found) < count:
            points = self.rng.uniform(-_REACH, _REACH, (8 * count + 8, 2))
            kept = (np.linalg.norm(points, axis=-1) < _REACH) & (np.linalg.norm(points - self.disc, axis=-1) > self.margin)
            found = np.concatenate([found, points[kept & allowed(points)]])
        return found[:count]


def _blob(rng: np.random.Generator, kind: int, centre: np.ndarray, radius: float, raggedness: float = 0.1) -> Lesion:
    """A ragged ellipse."""
    stretch, turn = rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
    radii = radius * (1 + raggedness * rng.uniform(-1, 1, len(_CIRCLE)))
    x, y = radii * _CIRCLE[:, 0] * stretch, radii * _CIRCLE[:, 1] / stretch
    cosine, sine = np.cos(turn), np.sin(turn)
    return Lesion(kind, centre + np.stack([x * cosine - y * sine, x * sine + y * cosine], -1))


def _tuft(rng: np.random.Generator, kind: int, centre: np.ndarray, extent: float, width: float) -> Lesion:
    """A tangle: one thin line that loops around its centre."""
    along = np.linspace(0, 2 * np.pi, 40)
    loops = rng.integers(2, 5, 2)
    phases = rng.uniform(0, 2 * np.pi, 4)
    x = np.sin(loops[0] * along + phases[0]) * 0.6 + 0.4 * np.sin((loops[0] + 3) * along + phases[1])
    y = np.cos(loops[1] * along + phases[2]) * 0.6 + 0.4 * np.cos((loops[1] + 2) * along + phases[3])
    return Lesion(kind, centre + 0.5 * extent * np.stack([x, y], -1), width)
