"""Are synthetic images copies? Distance to the nearest training image, against that of real held-out images.

A held-out image is as new as an image can be, so its distance to the nearest training image is the yardstick: a synthetic
image nearer than the first or fifth percentile of the held-out ones is flagged. Of a generator that copies nothing about
one and five in a hundred are flagged; many more mean that it repeats its training set.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.arrays import require_images
from medsynth_tf.metrics.extractors import Extractor

PERCENTILES = (1, 5)
_CHUNK_NUMBERS = 2**24  # float32 numbers of a chunk of images, 64 MB
FEWEST_HELD_OUT = 20  # with fewer, the fifth percentile is the nearest image


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Nearest training image of each synthetic one, in one space.

    Attributes:
        space: `pixels` (root mean square difference in grey levels, 0 to 255) or the extractor's name (Euclidean distance).
        nearest: int64 [N], position among the training images.
        distance: float64 [N].
        baseline: float64 [H], the held-out images' distance to their nearest training image.
    """

    space: str
    nearest: np.ndarray
    distance: np.ndarray
    baseline: np.ndarray

    def flagged(self, percentile: float) -> np.ndarray:
        """bool [N]: nearer than this percentile of the baseline, or at distance 0."""
        return (self.distance < np.percentile(self.baseline, percentile)) | self.copied

    @property
    def copied(self) -> np.ndarray:
        """bool [N]: at distance 0."""
        return self.distance == 0

    def summary(self) -> dict[str, object]:
        """Plain values for a report."""
        flags = {f"nearer_than_percentile_{p}": int(self.flagged(p).sum()) for p in PERCENTILES}
        return {
            "space": self.space,
            "synthetic": len(self.distance),
            "held_out": len(self.baseline),
            **flags,
            "share_nearer_than_percentile_5": float(self.flagged(5).mean()),
            "copies": int(self.copied.sum()),
            "median_distance": float(np.median(self.distance)),
            "median_distance_held_out": float(np.median(self.baseline)),
            "smallest_distance": float(self.distance.min()),
        }


def memorisation(
    synthetic: np.ndarray, train: np.ndarray, held_out: np.ndarray, extractor: Extractor
) -> tuple[Neighbours, Neighbours]:
    """Nearest neighbours in pixel space and in feature space.

    Args:
        synthetic: uint8 [N, H, W, C].
        train: uint8 [M, H, W, C], what the generator was trained on.
        held_out: uint8 [K, H, W, C], real images of other patients.
        extractor: gives the feature space.

    Raises:
        DataError: a set is empty or not of uint8 images, or sizes differ.
    """
    sets = {"synthetic": synthetic, "training": train, "held-out": held_out}
    for what, images in sets.items():
        if require_images(images, f"{what} images").dtype != np.uint8:
            raise DataError(f"{what} images: expected uint8 for distances in grey levels, got {images.dtype}")
    shapes = {images.shape[1:] for images in sets.values()}
    if len(shapes) > 1:
        raise DataError("memorisation: synthetic, training and held-out images differ in size: " + ", ".join(map(str, shapes)))
    scale = np.sqrt(np.prod(train.shape[1:]))
    pixels = _neighbours("pixels", *(images.reshape(len(images), -1) for images in sets.values()), scale=float(scale))
    features = _neighbours(extractor.name, *(extractor(images) for images in sets.values()), scale=1.0)
    return pixels, features


def _neighbours(space: str, synthetic: np.ndarray, train: np.ndarray, held_out: np.ndarray, *, scale: float) -> Neighbours:
    nearest, distance = nearest_rows(synthetic, train)
    _, baseline = nearest_rows(held_out, train)
    return Neighbours(space, nearest, distance / scale, baseline / scale)


def nearest_rows(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest reference of each query and its Euclidean distance: int64 [N], float64 [N].

    Candidates come from matrix products of chunks, so that memory is bounded whatever the number of rows; the distance to the
    chosen one is then computed directly, so that a copy has distance 0.

    Args:
        queries: [N, F], uint8 or float.
        references: [M, F], of the same type.
    """
    width = queries.shape[1]
    rows = max(1, _CHUNK_NUMBERS // width)
    centre = references[: max(1, rows // 4)].mean(0, dtype=np.float64).astype(np.float32)  # smaller numbers round less
    nearest = np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), rows):
        query = queries[start : start + rows].astype(np.float32) - centre
        best = np.full(len(query), np.inf, np.float32)
        for first in range(0, len(references), rows):
            reference = references[first : first + rows].astype(np.float32) - centre
            # |q|² is the same for all references of a query, so it is left out.
            squared = np.einsum("ij,ij->i", reference, reference)[None] - 2 * query @ reference.T
            winner = squared.argmin(1)
            value = squared[np.arange(len(query)), winner]
            better = value < best
            best[better] = value[better]
            nearest[start : start + rows][better] = first + winner[better]
    distance = np.array(
        [np.linalg.norm(query.astype(np.float64) - references[at]) for query, at in zip(queries, nearest)], np.float64
    )
    return nearest, distance
