"""Planes and cubes in a volume, in millimetres: orientations, coordinates, sampling, and which voxels a plane goes through.

A volume [D, H, W] lies on axes, a matrix [3, 3] whose column k is the step in millimetres from one voxel to the next along
array axis k: `diag(spacing)` for a volume whose axes are at right angles, the upper left part of an affine matrix in general.
Points are given from the volume's centre c, the middle between its first and last voxel. A frame R is a rotation with columns
(n, u, v), n the unit normal of a plane, and point (a, i, j) of a grid of pixel h lies at c + a·h·n + i·h·u + j·h·v. Source:
Laprade, Perslev, Sporring (DALI at MICCAI 2021), section 2, and Perslev et al. (MICCAI 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

_TIE = 1e-9  # voxels; what rounding may take from a distance that is exactly half a voxel


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where a volume's voxels are.

    Attributes:
        shape: (D, H, W).
        axes: float64 [3, 3], millimetres.
    """

    shape: tuple[int, int, int]
    axes: np.ndarray

    @classmethod
    def of_spacing(cls, shape: Sequence[int], spacing: Sequence[float] | np.ndarray) -> Geometry:
        """Of axes at right angles."""
        depth, height, width = map(int, shape)
        return cls((depth, height, width), np.diag(np.asarray(spacing, np.float64)))

    @property
    def middle(self) -> np.ndarray:
        """Index coordinates of the centre, float64 [3]."""
        return (np.asarray(self.shape, np.float64) - 1.0) / 2.0

    @property
    def radius(self) -> float:
        """Of the sphere around the centre that holds all voxel centres, millimetres."""
        corners = np.stack(np.meshgrid(*([-1.0, 1.0],) * 3, indexing="ij"), -1).reshape(-1, 3) * self.middle
        return float(np.linalg.norm(corners @ self.axes.T, axis=1).max())

    @property
    def finest(self) -> float:
        """The smallest distance between neighbours along an axis, millimetres."""
        return float(np.linalg.norm(self.axes, axis=0).min())

    def thickness(self, normal: np.ndarray) -> float:
        """How much one voxel measures along a direction, millimetres; the spacing itself along an axis."""
        return float(np.linalg.norm(self.axes.T @ normal))

    def indices(self, points: np.ndarray) -> np.ndarray:
        """Millimetres from the centre [..., 3] → index coordinates [..., 3]."""
        return points @ np.linalg.inv(self.axes).T + self.middle

    def smallest_face(self) -> float:
        """Area in square millimetres of the smallest of the three faces of the box of voxels."""
        sides = np.linalg.norm(self.axes, axis=0) * self.shape
        return float(np.prod(sides) / sides.max())


@dataclasses.dataclass(frozen=True)
class Plane:
    """One plane: its frame and its distance from the centre along the normal, in millimetres.

    Attributes:
        frame: float64 [3, 3], columns n, u, v; det +1.
        offset: signed.
    """

    frame: np.ndarray
    offset: float

    @property
    def normal(self) -> np.ndarray:
        """n, float64 [3]."""
        return self.frame[:, 0]


def random_frame(rng: np.random.Generator, normal: np.ndarray | None = None) -> np.ndarray:
    """A rotation with columns (n, u, v), det +1: uniform over all rotations, or over the turns around a given n."""
    n = rng.normal(size=3) if normal is None else np.asarray(normal, np.float64)
    n = n / np.linalg.norm(n)
    helper = np.eye(3)[np.argmin(np.abs(n))]
    u = np.cross(n, helper)
    u /= np.linalg.norm(u)
    v = np.cross(n, u)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([n, cosine * u + sine * v, cosine * v - sine * u], axis=1)


def axis_frame(axis: int) -> np.ndarray:
    """The frame whose normal is array axis `axis`; u and v are the other two, in the order that makes det +1."""
    return np.eye(3)[:, [axis, (axis + 1) % 3, (axis + 2) % 3]]


def grid_points(frame: np.ndarray, centre: np.ndarray, shape: Sequence[int], pixel: float) -> np.ndarray:
    """Millimetres from the volume's centre of a grid's points, float64 [*shape, 3].

    Args:
        frame: columns n, u, v.
        centre: of the grid, millimetres from the volume's centre, [3].
        shape: (S, S) for a plane, on u and v; (S, S, S) for a cube, on n, u and v.
        pixel: h, millimetres.
    """
    steps = np.stack(np.meshgrid(*(np.arange(side) - (side - 1) / 2.0 for side in shape), indexing="ij"), -1)
    return centre + pixel * steps @ frame[:, 3 - len(shape) :].T


def inside(indices: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Whether index coordinates [..., 3] lie in a voxel, that is within half a voxel of the box of voxel centres; bool [...]."""
    return ((indices >= -0.5 - _TIE) & (indices <= np.asarray(shape) - 0.5 + _TIE)).all(-1)


def sample_linear(volume: np.ndarray, indices: np.ndarray, fill: float) -> np.ndarray:
    """Trilinear interpolation, float32 [...]; within the outer half voxel the nearest values go on, beyond it is `fill`."""
    flat = np.moveaxis(indices, -1, 0)
    found = ndimage.map_coordinates(volume, flat, order=1, mode="nearest", output=np.float32)
    return np.where(inside(indices, volume.shape), found, np.float32(fill))


def sample_nearest(volume: np.ndarray, indices: np.ndarray, fill: int) -> np.ndarray:
    """The value of the voxel that a point lies in, [...] of the volume's type; `fill` outside."""
    nearest = np.clip(np.floor(indices + 0.5).astype(np.int64), 0, np.asarray(volume.shape) - 1)
    found = volume[tuple(np.moveaxis(nearest, -1, 0))]
    return np.where(inside(indices, volume.shape), found, np.asarray(fill, volume.dtype))


def planes_through(geometry: Geometry, planes: Sequence[Plane], thickness: float = 1.0, chunk: int = 2**22) -> np.ndarray:
    """Which voxels lie within half of `thickness` voxels of a plane, |n·(x - c) - o| ≤ thickness/2 · h(n): bool [D, H, W].

    h(n) is what a voxel measures along n. One product over the grid for all planes, in slabs of about `chunk` voxels.
    """
    depth, height, width = geometry.shape
    found = np.zeros(geometry.shape, bool)
    if not planes:
        return found
    normals = np.stack([plane.normal for plane in planes], axis=1)  # [3, P]
    limits = np.array([0.5 * thickness * geometry.thickness(plane.normal) + _TIE * geometry.finest for plane in planes])
    offsets = np.array([plane.offset for plane in planes])
    along = geometry.axes.T @ normals  # [3, P]: how n·x grows from voxel to voxel of each axis
    rows = (np.arange(height) - geometry.middle[1])[:, None, None] * along[1]
    columns = (np.arange(width) - geometry.middle[2])[:, None] * along[2]
    step = max(1, chunk // (height * width * len(planes)))
    for start in range(0, depth, step):
        slices = (np.arange(start, min(start + step, depth)) - geometry.middle[0])[:, None, None, None] * along[0]
        distance = np.abs(slices + rows + columns - offsets)
        found[start : start + step] = (distance <= limits).any(-1)
    return found
