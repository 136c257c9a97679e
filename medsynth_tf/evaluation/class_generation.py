"""Judges generators of images of a class: near to real ones, as varied, nothing copied, and do they help a classifier?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.augmentation_study import Labelled, augmentation_study
from medsynth_tf.evaluation.generation import GenerationImages, write_generation_report
from medsynth_tf.evaluation.memorisation import nearest_rows
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.extractors import default_extractor

_BATCH = 64
_SHOWN = 12


def judge_classes(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Writes the report on `evaluation.samples` images, classes as often as in the held-out records.

    Returns:
        The metrics of `write_generation_report` and `nearness` (see `nearness`), `acceptance` (mean share of proposals that Markov
        chains accepted) and, with classes, `study` (see `augmentation_study`).

    Raises:
        DataError: the split is empty.
    """
    real, train = (_records(config, source, name) for name in (split, "train"))
    if not len(real.labels):
        raise DataError(f"split '{split}' holds no records to judge on")
    count = config.evaluation.samples
    labels = np.resize(real.labels, count)
    images, acceptance = _synthetic(predict, config, labels, "evaluation")
    metrics: dict[str, Any] = {"nearness": nearness(images, real.images, train.images), "acceptance": acceptance}
    rows = []
    for label in np.unique(labels):
        rows.append(Row(f"Real, class {label}", real.images[real.labels == label][:_SHOWN]))
        rows.append(Row(f"SYNTHETIC, class {label}", images[labels == label][:_SHOWN]))
    title = f"{config.slug}: {split} split of {source.describe()['kind']}"
    pictures = {"Real and synthetic images by class": write_sheet(out / "classes.png", title, rows)}
    if config.classes > 1:

        def synthesise(run: int, each: int) -> Labelled:
            asked = np.repeat(np.arange(config.classes), each)
            return Labelled(_synthetic(predict, config, asked, f"study {run}")[0], asked)

        validation = _records(config, source, "val")
        metrics["study"] = augmentation_study(config.study, config.classes, train, validation, real, synthesise, config.seed)
    return write_generation_report(
        out,
        title,
        GenerationImages(real=real.images, synthetic=images, train=train.images),
        extractor=default_extractor(config.evaluation.extractor_weights),
        gates=config.evaluation.gates,
        baseline=baseline,
        log=log,
        config=config.to_dict(),
        more_metrics=metrics,
        more_pictures=pictures,
    )


def nearness(synthetic: np.ndarray, real: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Root mean square distances, of grey values from 0 to 1, to nearest neighbours; smaller is better.

    Args:
        synthetic, real, train: uint8 [N, H, W, C]; `real` was held out.

    Returns:
        `fidelity`: from synthetic images to real ones, mean. `coverage`: from real images to synthetic ones.
        `fidelity_of_training_images`, `coverage_of_training_images`: what training images in the place of synthetic ones would have.
    """
    sets = [images.reshape(len(images), -1) for images in (synthetic, real, train)]
    scale = 255.0 * sets[0].shape[1] ** 0.5

    def mean_distance(queries: np.ndarray, references: np.ndarray) -> float:
        return float(nearest_rows(queries, references)[1].mean() / scale)

    return {
        "fidelity": mean_distance(sets[0], sets[1]),
        "coverage": mean_distance(sets[1], sets[0]),
        "fidelity_of_training_images": mean_distance(sets[2], sets[1]),
        "coverage_of_training_images": mean_distance(sets[1], sets[2]),
    }


def _records(config: Any, source: Source, split: str) -> Labelled:
    if not source.split(split, config.data.split_fractions, config.seed):
        return Labelled(np.zeros([0, *config.image_shape], np.uint8), np.zeros([0], int))
    batches = method_info(config.slug).model_class().dataset(source, config, split, config.seed, training=False)
    found = [(batch["image"].numpy(), batch["label"].numpy()) for batch in batches]
    return Labelled(*(np.concatenate(parts) for parts in zip(*found)))


def _synthetic(predict: Any, config: Any, labels: np.ndarray, what: str) -> tuple[np.ndarray, float]:
    """Images of the classes, and the mean acceptance."""
    seeds = np.array([derive_seed(config.seed, what, index) for index in range(len(labels))], np.int64)
    made = [
        predict(
            {
                "label": tf.constant(labels[start : start + _BATCH].astype(np.int64)),
                "seed": tf.constant(seeds[start : start + _BATCH]),
            }
        )
        for start in range(0, len(labels), _BATCH)
    ]
    acceptance = np.concatenate([one["acceptance"].numpy() for one in made])
    return np.concatenate([one["image"].numpy() for one in made]), float(acceptance.mean())
