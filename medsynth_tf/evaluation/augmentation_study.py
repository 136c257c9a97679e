"""Does augmentation help a classifier? Trained on real, on real and synthetic, and on synthetic images alone; several runs of each.

The protocol of Chadebec and Allassonnière (DALI 2021, section 5.1): Adam, the weights of the best validation loss, tested on held-out
real images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.study_config import StudyConfig
from medsynth_tf.metrics.classification import accuracy, balanced_accuracy
from medsynth_tf.networks.plain_classifiers import PLAIN_CLASSIFIERS

_LARGEST_SHIFT, _LARGEST_TURN, _NOISE = 0.08, 15.0, 8.0  # share of the side, degrees, grey levels


class Labelled(NamedTuple):
    """Images uint8 [N, H, W, C] and their classes, int [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __add__(self, other: Labelled) -> Labelled:  # type: ignore[override]
        return Labelled(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]))


Synthesise = Callable[[int, int], Labelled]


def augmentation_study(
    settings: StudyConfig,
    classes: int,
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    synthesise: Synthesise,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Trains and tests the classifiers of all arms.

    Args:
        settings: classifier, numbers of synthetic images, runs.
        classes: K.
        train, validation, test: real images.
        synthesise: (run, n) → n images of each class; another run gives others.
        seed: of everything else.

    Returns:
        Arm → {"accuracy", "accuracy_std", "balanced_accuracy", "balanced_accuracy_std"} over the runs, as shares. Arms: `raw`,
        `classic_<factor>`, `raw_and_synthetic_<n>`, `synthetic_<n>`.

    Raises:
        DataError: a set is empty.
    """
    for name, images in (("training", train), ("validation", validation), ("test", test)):
        if not len(images.labels):
            raise DataError(f"the study of augmentation needs {name} images; there are none")
    arms: dict[str, Callable[[int], Labelled]] = {"raw": lambda run: train}
    for factor in settings.classic:
        arms[f"classic_{factor}"] = functools.partial(_classic, train, factor, seed)
    for count in settings.samples:
        arms[f"raw_and_synthetic_{count}"] = functools.partial(_both, train, synthesise, count)
        arms[f"synthetic_{count}"] = functools.partial(_synthetic, synthesise, count)
    results = {}
    for arm, images_of in arms.items():
        scores = []
        for run in range(settings.runs):
            own = derive_seed(seed, "classifier", run) % 2**31
            predicted = _predictions(settings, classes, images_of(run), validation, test.images, own)
            scores.append((accuracy(test.labels, predicted), balanced_accuracy(test.labels, predicted)))
        results[arm] = _summary(np.array(scores))
    return results


def _classic(train: Labelled, factor: int, seed: int, run: int) -> Labelled:
    return classic_augmentation(train, factor, derive_seed(seed, "classic", run))


def _both(train: Labelled, synthesise: Synthesise, count: int, run: int) -> Labelled:
    return train + synthesise(run, count)


def _synthetic(synthesise: Synthesise, count: int, run: int) -> Labelled:
    return synthesise(run, count)


def _summary(scores: np.ndarray) -> dict[str, float]:
    """Means and deviations of [runs, 2]."""
    mean, std = scores.mean(0), scores.std(0, ddof=1) if len(scores) > 1 else np.zeros(2)
    return {
        "accuracy": float(mean[0]),
        "accuracy_std": float(std[0]),
        "balanced_accuracy": float(mean[1]),
        "balanced_accuracy_std": float(std[1]),
    }


def _predictions(
    settings: StudyConfig, classes: int, train: Labelled, validation: Labelled, test: np.ndarray, seed: int
) -> np.ndarray:
    """What a classifier that learned `train` says of the test images, int [N]."""
    model = PLAIN_CLASSIFIERS[settings.classifier](train.images.shape[1:], classes, seed)
    model.compile(
        tf.keras.optimizers.Adam(settings.learning_rate), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    order = np.random.default_rng(seed).permutation(len(train.labels))
    data = tf.data.Dataset.from_tensor_slices((_scaled(train.images[order]), train.labels[order]))
    data = data.shuffle(len(order), seed=seed).batch(settings.batch_size)
    model.fit(
        data,
        validation_data=(_scaled(validation.images), validation.labels),
        epochs=settings.epochs,
        callbacks=[tf.keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True)],
        verbose=0,
    )
    return np.asarray(model.predict(_scaled(test), batch_size=256, verbose=0)).argmax(-1)


def classic_augmentation(real: Labelled, factor: int, seed: int) -> Labelled:
    """The images, and `factor` - 1 changed copies of each: shifted, turned, mirrored or not, with noise.

    The recipe is this library's: the paper names noise, cropping, flips and rotations and no numbers.
    """
    copies = [real.images]
    for copy in range(1, factor):
        rng = numpy_generator(seed, "copy", copy)
        copies.append(np.stack([_changed(image, rng) for image in real.images]))
    return Labelled(np.concatenate(copies), np.tile(real.labels, factor))


def _changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = np.array(image.shape[:2])
    turn = np.deg2rad(rng.uniform(-_LARGEST_TURN, _LARGEST_TURN))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if rng.uniform() < 0.5:
        matrix = matrix * [1.0, -1.0]
    middle = (size - 1) / 2
    offset = middle - matrix @ middle + rng.uniform(-_LARGEST_SHIFT, _LARGEST_SHIFT, 2) * size
    moved = np.stack(
        [
            ndimage.affine_transform(channel.astype(np.float32), matrix, offset, order=1)
            for channel in np.moveaxis(image, -1, 0)
        ],
        -1,
    )
    return np.clip(np.rint(moved + rng.normal(0, _NOISE, moved.shape)), 0, 255).astype(np.uint8)


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255.0


def study_table(results: dict[str, dict[str, float]]) -> Sequence[str]:
    """One line an arm, in percent with deviations, as the paper prints them."""
    return [
        f"{arm}: accuracy {100 * r['accuracy']:.1f} ({100 * r['accuracy_std']:.1f}), "
        f"balanced {100 * r['balanced_accuracy']:.1f} ({100 * r['balanced_accuracy_std']:.1f})"
        for arm, r in results.items()
    ]
