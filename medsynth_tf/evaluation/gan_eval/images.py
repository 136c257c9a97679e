"""The real images of the protocol, by patient, and what stands for a generator: a function of seeds, or images in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.open import open_source
from medsynth_tf.metrics.arrays import as_unit_float, require_images

_BATCH = 64
PURPOSES = ("train", "test")  # of a draw: which of STr and STs it is

Sample = Callable[[np.ndarray, "int | None"], np.ndarray]


@dataclasses.dataclass(frozen=True)
class RealImages:
    """RTr and RTs.

    Attributes:
        train: uint8, or float in [0, 1], [N, H, W, C]; what generators were trained on.
        test: [M, H, W, C], of other patients.
        train_labels: int [N].
        test_labels: int [M].
        train_patients: str [N].
        test_patients: str [M].

    Raises:
        DataError: a patient is in both, a part has less than two images, or lengths or sizes differ.
    """

    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray
    train_patients: np.ndarray
    test_patients: np.ndarray

    def __post_init__(self) -> None:
        shared = sorted(set(self.train_patients.tolist()) & set(self.test_patients.tolist()))
        if shared:
            raise DataError(
                f"{len(shared)} patient(s) are in training and test images, among them '{shared[0]}': split by patient"
            )
        require_images(self.train, "real training images", least=2)
        require_images(self.test, "real test images", least=2)
        if self.train.shape[1:] != self.test.shape[1:]:
            raise DataError(f"real images differ in size: {list(self.train.shape[1:])} and {list(self.test.shape[1:])}")
        for part in PURPOSES:
            lengths = {len(getattr(self, name)) for name in (part, f"{part}_labels", f"{part}_patients")}
            if len(lengths) > 1:
                raise DataError(f"real {part} images, labels and patients differ in number: {sorted(lengths)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.shape[1:]
        return height, width, channels

    @property
    def labels(self) -> list[int]:
        """Classes that occur in both parts."""
        return sorted(set(self.train_labels.tolist()) & set(self.test_labels.tolist()))

    def of(self, label: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Training and test images of a class, or of all (None)."""
        if label is None:
            return self.train, self.test
        return self.train[self.train_labels == label], self.test[self.test_labels == label]


class Generator(Protocol):
    """Who is compared."""

    name: str

    def labels(self) -> list[int] | None:
        """Classes that it can make; None: any."""

    def draw(self, purpose: str, run: int, count: int, label: int | None) -> np.ndarray:
        """At most `count` images of a class, float32 [n, H, W, C] in [0, 1]; those for 'train' and for 'test' never overlap."""


class SeededGenerator:
    """A function of seeds.

    Args:
        name: in the report.
        sample: (int64 [B] seeds, class or None) → images uint8, or float in [0, 1], [B, H, W, C].
        seed: all others derive from it.
        labels: classes that it can make; None: any.
    """

    def __init__(self, name: str, sample: Sample, seed: int = 0, labels: list[int] | None = None):
        self.name, self.sample, self.seed = name, sample, seed
        self._labels = labels

    def labels(self) -> list[int] | None:
        """Classes that it can make; None: any."""
        return self._labels

    def seeds(self, purpose: str, run: int, count: int, label: int | None) -> np.ndarray:
        """int64 [count]; none is used for two purposes, runs or classes."""
        where = ("gan_eval", self.name, purpose, run, "pooled" if label is None else label)
        return np.array([derive_seed(self.seed, *where, index) for index in range(count)], np.int64)

    def draw(self, purpose: str, run: int, count: int, label: int | None) -> np.ndarray:
        """`count` new images."""
        seeds = self.seeds(purpose, run, count, label)
        parts = [self.sample(seeds[start : start + _BATCH], label) for start in range(0, count, _BATCH)]
        return as_unit_float(require_images(np.concatenate(parts), f"images of {self.name}"))


class ImagePool:
    """Images that are there already: the first half of a random order is for training, the other for testing evaluators.

    Args:
        name: in the report.
        images: uint8, or float in [0, 1], [N, H, W, C].
        labels: int [N], or None: they are of whatever class is asked for.
        seed: of the order and of the choice in each run.

    Raises:
        DataError: fewer than 4 images, or another number of labels.
    """

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray | None = None, seed: int = 0):
        self.name, self.seed = name, seed
        self.images = require_images(images, f"images of {name}", least=4)
        self.image_labels = None if labels is None else np.asarray(labels)
        if labels is not None and len(labels) != len(images):
            raise DataError(f"{name}: {len(images)} images and {len(labels)} labels")

    def labels(self) -> list[int] | None:
        """Classes that there are images of; None: they have none."""
        return None if self.image_labels is None else sorted(set(self.image_labels.tolist()))

    def draw(self, purpose: str, run: int, count: int, label: int | None) -> np.ndarray:
        """A random choice of `count`, or all there are, of the purpose's half."""
        chosen = np.arange(len(self.images))
        if label is not None and self.image_labels is not None:
            chosen = chosen[self.image_labels == label]
        if len(chosen) < 4:
            raise DataError(f"{self.name}: {len(chosen)} images of class {label}, at least 4 needed")
        order = numpy_generator(self.seed, "halves").permutation(chosen)
        # evaluators train on more images than they are tested with, and so do the real ones
        half = len(order) // 2
        part = order[:half] if purpose == "train" else order[half:]
        part = numpy_generator(self.seed, "choice", purpose, run).permutation(part)[:count]
        return as_unit_float(self.images[part])


def read_pool(name: str, path: str | Path, shape: tuple[int, int, int], seed: int = 0) -> ImagePool:
    """Synthetic images from files.

    Args:
        name: in the report.
        path: `.npy`, an array of images; `.npz`, `images` and perhaps `labels`; or a folder of images that `folder:` reads.
        shape: that they must have.
        seed: of the pool.

    Raises:
        DataError: the file cannot be read, holds no images, or images of another size.
    """
    path = Path(path)
    labels = None
    try:
        if path.suffix == ".npy":
            images = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                if "images" not in stored:
                    raise DataError(f"{path}: no array 'images'; there are: {', '.join(stored.files) or 'none'}")
                images, labels = stored["images"], stored.get("labels")
        else:
            source = open_source(f"folder:{path}")
            keys = source.keys()
            images = [source.read(key)["image"] for key in keys]
            found = [key.label for key in keys]
            labels = None if None in found else np.array(found)
            if len({image.shape for image in images}) > 1:
                raise DataError(f"{path}: images of different sizes")
            images = np.stack(images)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim == 4 and images.shape[-1] == 3 and shape[-1] == 1 and images.dtype == np.uint8:
        grey = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        images = np.rint(grey).astype(np.uint8)[..., np.newaxis]
    if images.shape[1:] != shape:
        raise DataError(f"{path}: images are {list(images.shape[1:])}, the real ones {list(shape)}: sizes must be the same")
    return ImagePool(name, images, labels, seed)
