"""The retina's vessels as a branching tree of polylines, grown from the optic disc.

Coordinates are (x, y) in diameters of the field of view with its centre at the origin, x to the right, y down.
"""

from __future__ import annotations

import dataclasses

import numpy as np

STEPS = 24  # points of a polyline
_CHILDREN = (6, 2)  # branches off each trunk, and off each of those


@dataclasses.dataclass(frozen=True)
class VesselTree:
    """All vessels of an eye.

    Attributes:
        points: float64 [N, STEPS, 2].
        widths: float64 [N, STEPS]; 0 where the vessel has ended.
        veins: bool [N]; the others are arteries, narrower and brighter.
    """

    points: np.ndarray
    widths: np.ndarray
    veins: np.ndarray


def grow_tree(rng: np.random.Generator, disc: np.ndarray, fovea: np.ndarray, disc_radius: float) -> VesselTree:
    """A tree whose trunks leave the disc: temporal arcades that arch around the fovea, nasal ones that run straight.

    Args:
        rng: where every random number comes from.
        disc: centre of the optic disc, [2].
        fovea: centre of the macula, [2].
        disc_radius: radius of the optic disc.
    """
    temporal = np.sign(fovea[0] - disc[0])
    # One row a trunk: heading at the disc and far away, in degrees from the temporal direction; length; is it a vein.
    trunks = np.array(
        [
            [78.0, -12.0, 1.00, 1],
            [92.0, -4.0, 0.95, 0],
            [-78.0, 12.0, 1.00, 1],
            [-92.0, 4.0, 0.95, 0],
            [128.0, 150.0, 0.45, 1],
            [145.0, 135.0, 0.45, 0],
            [-128.0, -150.0, 0.45, 1],
            [-145.0, -135.0, 0.45, 0],
            [40.0, 6.0, 0.22, 0],
            [-42.0, -8.0, 0.22, 1],
        ]
    )
    count = len(trunks)
    start, end = np.deg2rad(trunks[:, :2] + rng.normal(0, 7, (count, 2))).T
    length = trunks[:, 2] * rng.uniform(0.85, 1.1, count)
    veins = trunks[:, 3] > 0
    width = np.where(veins, 0.0165, 0.0125) * rng.uniform(0.85, 1.15, count) * np.where(np.abs(trunks[:, 0]) < 100, 1.0, 0.72)
    width[8:] *= 0.5  # the macula is fed by twigs
    turn = rng.uniform(0.16, 0.24, count)  # diameters over which the heading changes
    origin = disc + rng.normal(0, 0.2 * disc_radius, (count, 2))
    points, widths = _grow(rng, origin=origin, start=start, end=end, turn=turn, length=length, width=width, mirror=temporal)
    widths = _ended(points, widths, fovea)
    all_points, all_widths, all_veins = [points], [widths], [veins]
    for level in range(len(_CHILDREN)):
        points, widths, veins = _branch(rng, (points, widths, veins), fovea, children=_CHILDREN[level])
        all_points.append(points)
        all_widths.append(widths)
        all_veins.append(veins)
    return VesselTree(np.concatenate(all_points), np.concatenate(all_widths), np.concatenate(all_veins))


def _grow(
    rng: np.random.Generator,
    *,
    origin: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    turn: np.ndarray,
    length: np.ndarray,
    width: np.ndarray,
    mirror: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Polylines whose heading goes from `start` to `end` (radians, counter-clockwise) with a little wandering, tapering."""
    count = len(origin)
    along = np.linspace(0, 1, STEPS)[None] * length[:, None]
    heading = end[:, None] + (start - end)[:, None] * np.exp(-along / turn[:, None])
    phase, waves = rng.uniform(0, 2 * np.pi, (2, count, 1)), rng.uniform(9, 24, (2, count, 1))
    heading = heading + 0.22 * np.sin(waves[0] * along + phase[0]) + 0.16 * np.sin(2.3 * waves[1] * along + phase[1])
    step = length[:, None] / (STEPS - 1)
    offsets = np.stack([mirror * np.cos(heading) * step, -np.sin(heading) * step], -1)
    offsets[:, 0] = 0
    points = origin[:, None] + np.cumsum(offsets, 1)
    return points, width[:, None] * np.linspace(1, 0.5, STEPS)[None]


def _branch(
    rng: np.random.Generator, parents: tuple[np.ndarray, np.ndarray, np.ndarray], fovea: np.ndarray, children: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`children` branches off every parent (points, widths, veins), to alternating sides, thinner and shorter than it."""
    points, widths, veins = parents
    parent = np.repeat(np.arange(len(points)), children)
    order = np.tile(np.arange(children), len(points))
    place = np.clip((order + rng.uniform(0.3, 1.2, len(parent))) / (children + 0.6), 0.08, 0.92)
    at = np.round(place * (STEPS - 1)).astype(int)
    alive = widths[parent, at] > 0
    parent, order, place, at = parent[alive], order[alive], place[alive], at[alive]
    origin = points[parent, at]
    before, after = points[parent, at - 1], points[parent, np.minimum(at + 1, STEPS - 1)]
    direction = after - before
    heading = np.arctan2(-direction[:, 1], direction[:, 0])
    side = np.where((order + rng.integers(0, 2, len(points))[parent]) % 2, 1.0, -1.0)
    parent_length = np.linalg.norm(np.diff(points[parent], axis=1), axis=-1).sum(-1)
    length = parent_length * rng.uniform(0.28, 0.6, len(parent)) * (1.15 - 0.6 * place)
    start = heading + side * np.deg2rad(rng.uniform(35, 75, len(parent)))
    end = heading + side * np.deg2rad(rng.uniform(5, 45, len(parent)))
    width = widths[parent, at] * rng.uniform(0.5, 0.75, len(parent))
    grown, tapered = _grow(
        rng, origin=origin, start=start, end=end, turn=np.full(len(parent), 0.08), length=length, width=width
    )
    return grown, _ended(grown, tapered, fovea), veins[parent]


def _ended(points: np.ndarray, widths: np.ndarray, fovea: np.ndarray) -> np.ndarray:
    """Vessels end for good where they would enter the foveal avascular zone or leave the field of view."""
    outside = (np.linalg.norm(points - fovea, axis=-1) < 0.06) | (np.linalg.norm(points, axis=-1) > 0.52)
    return np.where(np.maximum.accumulate(outside, 1), 0.0, widths)
