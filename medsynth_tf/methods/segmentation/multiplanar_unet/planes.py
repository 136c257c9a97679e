"""Annotation drawn on few planes of the training volumes, and the planes that are trained on: lines of labels, or full planes.

One volume is read at a time; what stays in memory are the planes, whose number is a setting, or, where planes are drawn anew
in each batch, the annotated volumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.data.binary_labels import binary_labels
from medsynth_tf.data.records import OUTSIDE, Record
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.segmentation.multiplanar_unet.config import MultiPlanarUNetConfig
from medsynth_tf.methods.segmentation.multiplanar_unet.intensity import normalised
from medsynth_tf.ops import planes as geometry
from medsynth_tf.ops.planes import Geometry, Plane

UNKNOWN = OUTSIDE
"""The code of pixels without annotation: neither they nor what lies outside the volume counts."""

_MOST_TRIES = 1000


@dataclasses.dataclass(frozen=True)
class AnnotatedVolume:
    """A volume with labels on some planes.

    Attributes:
        image: float32 [D, H, W], normalised.
        full: uint8 [D, H, W], 0 or 1 everywhere, UNKNOWN where the record knows no label.
        sparse: the same on annotated planes, UNKNOWN elsewhere.
        fill: what images show outside.
        place: where its voxels are.
        annotation: the annotated planes.
    """

    image: np.ndarray
    full: np.ndarray
    sparse: np.ndarray
    fill: float
    place: Geometry
    annotation: tuple[Plane, ...]


@dataclasses.dataclass(frozen=True)
class PlaneSet:
    """Training examples, in memory.

    Attributes:
        image: float32 [N, S, S], or cubes [N, S, S, S].
        label: uint8 of the same shape: 0, 1, or UNKNOWN.
        fill: float32 [N], what lies outside each one's volume.
    """

    image: np.ndarray
    label: np.ndarray
    fill: np.ndarray

    @property
    def annotated_pixels(self) -> int:
        """How many have a label."""
        return int((self.label != UNKNOWN).sum())


def geometry_of(record: Record, config: MultiPlanarUNetConfig) -> Geometry:
    """In millimetres by the record's spacing, or in voxels.

    Raises:
        DataError: the record is no volume of one channel, or has no mask or spacing.
    """
    image = record["image"]
    if image.ndim != 4 or image.shape[-1] != 1:
        raise DataError(f"record '{record['id']}': image of shape {list(image.shape)}; expected a volume [D, H, W, 1]")
    if "mask" not in record:
        raise DataError(f"record '{record['id']}' has no mask; planes are annotated from it")
    if config.space == "voxel":
        return Geometry.of_spacing(image.shape[:3], (1.0, 1.0, 1.0))
    if "spacing" not in record:
        raise DataError(f"record '{record['id']}' has no spacing; give one, or set space to 'voxel'")
    return Geometry.of_spacing(image.shape[:3], record["spacing"])


class PlaneSampler:
    """Draws planes of one volume; a plane that hits too little of it is refused.

    Args:
        place: the volume's.
        config: the method's.
        rng: of all draws.
    """

    def __init__(self, place: Geometry, config: MultiPlanarUNetConfig, rng: np.random.Generator):
        self.place, self.config, self.rng = place, config, rng
        self.pixel = config.planes.pixel or place.finest

    def _frame(self, normal: np.ndarray | None) -> np.ndarray:
        if self.config.planes.orientation == "axis_aligned":
            return geometry.axis_frame(int(self.rng.integers(3)))
        return geometry.random_frame(self.rng, normal)

    def indices(self, plane: Plane) -> np.ndarray:
        """Index coordinates of its pixels, float64 [S, S, 3]."""
        centre = plane.offset * plane.normal
        points = geometry.grid_points(plane.frame, centre, (self.config.planes.size,) * 2, self.pixel)
        return self.place.indices(points)

    def plane(self, normals: np.ndarray | None = None) -> Plane:
        """A random plane; its normal is uniform, or near one of `normals` [K, 3].

        Raises:
            DataError: none of a thousand hits enough of the volume.
        """
        size, own = self.config.planes.size, self.config.planes
        wanted = own.minimum_hit * min(self.place.smallest_face(), (size * self.pixel) ** 2)
        for _ in range(_MOST_TRIES):
            normal = None
            if normals is not None:
                normal = normals[self.rng.integers(len(normals))] + self.rng.normal(0.0, own.jitter, 3)
            plane = Plane(self._frame(normal), float(self.rng.uniform(-1.0, 1.0) * self.place.radius))
            hit = geometry.inside(self.indices(plane), self.place.shape).sum() * self.pixel**2
            if hit >= wanted:
                return plane
        raise DataError(
            f"no plane of {_MOST_TRIES} hits {own.minimum_hit:g} of a volume of {self.place.shape} voxels; lower planes.minimum_hit"
        )

    def cube(self, turned: bool, on: Plane | None = None) -> np.ndarray:
        """Index coordinates of a cube's voxels, float64 [S, S, S, 3].

        Args:
            turned: at random; else along the volume's axes.
            on: its centre lies on this plane; None: anywhere.
        """
        frame = geometry.random_frame(self.rng) if turned else geometry.axis_frame(0)
        half = self.place.axes @ self.place.middle
        centre = self.place.axes @ (self.rng.uniform(-1.0, 1.0, 3) * self.place.middle)
        if on is not None:
            centre = np.clip(centre - (on.normal @ centre - on.offset) * on.normal, -np.abs(half), np.abs(half))
        shape = (self.config.comparator.size,) * 3
        return self.place.indices(geometry.grid_points(frame, centre, shape, self.pixel))


def sample(volume: AnnotatedVolume, indices: np.ndarray, full: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Image (trilinear) and codes (nearest) at index coordinates [..., 3]; outside the volume its fill and UNKNOWN."""
    labels = volume.full if full else volume.sparse
    return (
        geometry.sample_linear(volume.image, indices, volume.fill),
        geometry.sample_nearest(labels, indices, UNKNOWN),
    )


def annotated_volumes(
    source: Source, config: MultiPlanarUNetConfig, split: str, seed: int
) -> Iterator[tuple[RecordKey, AnnotatedVolume, np.random.Generator]]:
    """The volumes of a split that have annotated planes, one after the other, each with the generator of its further draws.

    Raises:
        DataError: the split is empty, or a record is no annotated volume.
    """
    keys = source.split(split, config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"split '{split}' is empty; data.split_fractions = {config.data.split_fractions}")
    for key, count in zip(keys, annotation_shares(source, config, split, seed)):
        if not count:
            continue
        rng = numpy_generator(seed, "multiplanar_unet/planes", split, key.id)
        record = source.read(key)
        place = geometry_of(record, config)
        sampler = PlaneSampler(place, config, rng)
        chosen = tuple(sampler.plane() for _ in range(count))
        full = binary_labels(record["mask"], config.foreground)
        seen = geometry.planes_through(place, chosen, config.planes.thickness)
        image, fill = normalised(record["image"][..., 0])
        yield key, AnnotatedVolume(image, full, np.where(seen, full, np.uint8(UNKNOWN)), fill, place, chosen), rng


def annotation_shares(source: Source, config: MultiPlanarUNetConfig, split: str, seed: int) -> list[int]:
    """How many annotated planes each volume of a split has: n_a in all for training, half as many for any other split."""
    volumes = len(source.split(split, config.data.split_fractions, config.seed))
    total = config.planes.annotation if split == "train" else max(1, config.planes.annotation // 2)
    return shares(total, volumes, config.planes.per_volume, seed, f"annotation/{split}")


def shares(total: int, volumes: int, each: bool, seed: int, name: str) -> list[int]:
    """How many of `total` planes each volume has: all of them if `each`, else every plane is of a volume chosen at random."""
    if each:
        return [total] * volumes
    if not volumes:
        return []
    chosen = numpy_generator(seed, "multiplanar_unet/volumes", name).integers(volumes, size=total)
    return np.bincount(chosen, minlength=volumes).tolist()


def plane_set(source: Source, config: MultiPlanarUNetConfig, split: str, seed: int) -> PlaneSet:
    """The fixed examples of a run: n_t resampled ones whose labels are lines, or for n_t = 0 the n_a annotated planes themselves.

    Raises:
        DataError: as `annotated_volumes`; or a volume has too few labels for a training plane.
    """
    own = config.planes
    found = annotated_volumes(source, config, split, seed)
    if own.training:
        count = own.training if split == "train" else own.validation_training or max(1, own.training // 2)
        having = sum(n > 0 for n in annotation_shares(source, config, split, seed))
        dealt = shares(count, having, own.per_volume, seed, f"training/{split}")
        total = sum(dealt)
    else:
        dealt = annotation_shares(source, config, split, seed)
        total, dealt = sum(dealt), [n for n in dealt if n]
    examples = PlaneSet(
        np.empty((total, *config.shape), np.float32), np.empty((total, *config.shape), np.uint8), np.empty(total, np.float32)
    )
    position = 0
    for count, (key, volume, rng) in zip(dealt, found):
        sampler = PlaneSampler(volume.place, config, rng)
        for number in range(count):
            if own.training:
                image, label = labelled_example(volume, sampler, config, key)
            elif config.model == "mpunet2d":
                image, label = sample(volume, sampler.indices(volume.annotation[number]), full=True)
            else:
                image, label = _cube_on(volume, sampler, config, key, volume.annotation[number])
            examples.image[position], examples.label[position], examples.fill[position] = image, label, volume.fill
            position += 1
    return examples


def labelled_example(
    volume: AnnotatedVolume,
    sampler: PlaneSampler,
    config: MultiPlanarUNetConfig,
    key: RecordKey,
    normals: np.ndarray | None = None,
    foreground: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """A random plane or cube through the sparse labels that has enough of them: image float32, codes uint8.

    Args:
        volume: to cut from.
        sampler: of this volume.
        config: the method's.
        key: what messages call the volume.
        normals: the plane's is near one of these, [K, 3]; None: uniform.
        foreground: whether there must be any.

    Raises:
        DataError: none of a thousand has.
    """
    for _ in range(_MOST_TRIES):
        if config.model == "mpunet2d":
            indices = sampler.indices(sampler.plane(normals))
        else:
            indices = sampler.cube(turned=True)
        codes = geometry.sample_nearest(volume.sparse, indices, UNKNOWN)
        if (codes != UNKNOWN).sum() >= config.planes.minimum_labelled and (not foreground or (codes == 1).any()):
            return geometry.sample_linear(volume.image, indices, volume.fill), codes
    raise DataError(f"record '{key.id}': {_too_few(config, foreground)}")


def _cube_on(
    volume: AnnotatedVolume, sampler: PlaneSampler, config: MultiPlanarUNetConfig, key: RecordKey, plane: Plane
) -> tuple[np.ndarray, np.ndarray]:
    for _ in range(_MOST_TRIES):
        image, codes = sample(volume, sampler.cube(turned=False, on=plane))
        if (codes != UNKNOWN).sum() >= config.planes.minimum_labelled:
            return image, codes
    raise DataError(f"record '{key.id}': {_too_few(config, False)}")


def _too_few(config: MultiPlanarUNetConfig, foreground: bool) -> str:
    what = "plane" if config.model == "mpunet2d" else "cube"
    more = " with foreground among them" if foreground else ""
    return (
        f"no {what} of {_MOST_TRIES} has {config.planes.minimum_labelled} annotated pixels{more}; the volume is too small or too "
        "sparsely annotated: raise planes.annotation or lower planes.minimum_labelled"
    )
