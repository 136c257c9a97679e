"""Judges generators of photographs and masks together: the photographs as any others, and whether the masks are theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

from medsynth_tf.core.registry import method_info
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.fundus import field_of_view
from medsynth_tf.data.joint_config import JointImageConfig
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.generation import GenerationImages, write_generation_report
from medsynth_tf.evaluation.segmenter import Segmenter
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.extractors import default_extractor
from medsynth_tf.metrics.overlap import dice
from medsynth_tf.metrics.pairing import pairing

MOST_ROLLS = 8


def judge_pairs(
    predict: Any,
    config: JointImageConfig,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Writes the report on `evaluation.samples` pairs; arguments as for every judge in `evaluation.run`.

    Returns:
        The metrics of `evaluate_generation`, with masks also `pairing`, `masks` and, if `judge.downstream`, `downstream`.
    """
    model_class = method_info(config.slug).model_class()
    held_out = _collected(model_class.dataset(source, config, split, config.seed, training=False))
    train = _collected(model_class.dataset(source, config, "train", config.seed, training=False))
    synthetic = _synthetic(predict, config, held_out.get("label"))
    metrics: dict[str, Any] = {}
    pictures: dict[str, Path] = {}
    if config.mask_names:
        metrics = pair_metrics(config, train, held_out, synthetic)
        chosen = np.arange(min(8, len(synthetic["image"])))
        rows = [Row("SYNTHETIC photograph", synthetic["image"][chosen]), Row("SYNTHETIC mask", synthetic["mask"][chosen])]
        names = ", ".join(f"{code} {name}" for code, name in enumerate(("retina", *config.mask_names)))
        pictures["Photographs and masks made together"] = write_sheet(out / "pairs.png", f"Made together; {names}", rows)
    return write_generation_report(
        out,
        f"{config.slug}: {split} split of {source.describe()['kind']}",
        GenerationImages(real=held_out["image"], synthetic=synthetic["image"], train=train["image"]),
        extractor=default_extractor(config.evaluation.extractor_weights),
        gates=config.evaluation.gates,
        baseline=baseline,
        log=log,
        config=config.to_dict(),
        more_metrics=metrics,
        more_pictures=pictures,
    )


def pair_metrics(
    config: JointImageConfig,
    train: Mapping[str, np.ndarray],
    held_out: Mapping[str, np.ndarray],
    synthetic: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Do masks belong to their images, are they plausible, do pairs help a segmenter?

    Args:
        config: of the method, for its masks and its judge.
        train, held_out: real pairs, "image" uint8 [N, S, S, 3] and "label_map" uint8 [N, S, S].
        synthetic: generated ones, "image" and "mask".

    Returns:
        `pairing`: mean Dice of generated masks with what a segmenter of real pairs finds in their images (`paired`), in
        images of others (`shuffled`), the difference (`margin`), and the segmenter's Dice on held-out real pairs (`real`), means
        over the masks and for each. `masks`: see `plausibility`. `downstream`: Dice on held-out pairs of a segmenter of real
        pairs (`real`), of real and synthetic ones (`with_synthetic`), and the `gain`.
    """
    names, classes = config.mask_names, len(config.mask_names) + 1
    judge = Segmenter(train["image"], train["label_map"], classes, config.judge, config.seed)
    found, found_real = judge(synthetic["image"]), judge(held_out["image"])
    scores: dict[str, dict[str, float]] = {}
    for code, name in enumerate(names, start=1):
        pair = pairing(found == code, synthetic["mask"] == code, min(MOST_ROLLS, len(found) - 1))
        real = dice(found_real == code, held_out["label_map"] == code).mean()
        scores[name] = {"paired": pair.paired, "shuffled": pair.shuffled, "margin": pair.margin, "real": float(real)}
    means = {key: float(np.mean([scores[name][key] for name in names])) for key in scores[names[0]]}
    metrics: dict[str, Any] = {
        "pairing": {**means, **(scores if len(names) > 1 else {})},
        "masks": plausibility(synthetic["image"], synthetic["mask"], held_out["label_map"], names),
    }
    if config.judge.downstream:
        both = Segmenter(
            np.concatenate([train["image"], synthetic["image"]]),
            np.concatenate([train["label_map"], synthetic["mask"]]),
            classes,
            config.judge,
            config.seed,
        )
        found_both = both(held_out["image"])
        with_synthetic = np.mean([dice(found_both == c, held_out["label_map"] == c).mean() for c in range(1, classes)])
        metrics["downstream"] = {
            "real": means["real"],
            "with_synthetic": float(with_synthetic),
            "gain": float(with_synthetic) - means["real"],
        }
    return metrics


def plausibility(
    images: np.ndarray, masks: np.ndarray, real_masks: np.ndarray, names: Sequence[str]
) -> dict[str, float | None]:
    """Shares of generated masks that look as masks do.

    Args:
        images: generated, uint8 [N, S, S, 3].
        masks: generated label maps uint8 [N, S, S].
        real_masks: label maps uint8 [M, S, S].
        names: of codes 1, 2, …

    Returns:
        `empty`: share of samples of which a mask has no pixel. `area_<name>`: mean area over that of real masks.
        `one_component`: share of discs, of those there are, in one piece. `inside_view`: share of mask pixels in their
        photograph's field of view. With atrophy `touching`: share of samples with disc and atrophy where these touch.
        None where there is nothing to count.
    """

    def share(values: Sequence[Any]) -> float | None:
        return float(np.mean(values)) if len(values) else None

    codes = range(1, len(names) + 1)
    discs = masks == 1
    view = np.stack([field_of_view(image) for image in images])
    result: dict[str, float | None] = {
        "empty": share([any(not (mask == code).any() for code in codes) for mask in masks]),
        "one_component": share([ndimage.label(disc)[1] == 1 for disc in discs if disc.any()]),
        "inside_view": share(view[masks > 0]),
    }
    for code, name in zip(codes, names):
        real = (real_masks == code).mean()
        result[f"area_{name}"] = float((masks == code).mean() / real) if real else None
    if len(names) > 1:
        both = [(disc, mask == 2) for disc, mask in zip(discs, masks) if disc.any() and (mask == 2).any()]
        result["touching"] = share([(ndimage.binary_dilation(disc) & atrophy).any() for disc, atrophy in both])
    return result


def _synthetic(predict: Any, config: JointImageConfig, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Samples of seeds that derive from the configuration's; classes as often as among the held-out records."""
    count, batch = config.evaluation.samples, config.training.batch_size
    seeds = np.array([derive_seed(config.seed, "evaluation", index) for index in range(count)], np.int64)
    parts: list[dict[str, tf.Tensor]] = []
    for start in range(0, count, batch):
        request = {"seed": tf.constant(seeds[start : start + batch])}
        if labels is not None:
            request["label"] = tf.constant(np.resize(labels, count)[start : start + batch])
        parts.append(predict(request))
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def _collected(batches: tf.data.Dataset) -> dict[str, np.ndarray]:
    parts = list(batches.as_numpy_iterator())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
