"""Judges style transfer: do results look like their style, do they show their content, and what does the latent space hold?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.generation import GenerationImages, write_generation_report
from medsynth_tf.evaluation.latent_map import LatentMap, flattened_codes, write_scatter
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.extractors import default_extractor
from medsynth_tf.metrics.label_contrast import label_contrast
from medsynth_tf.metrics.style_descriptor import StyleSpace, shape_correlation

_DRAWS, _CONTENTS, _SHOWN = 12, 4, 8
_REFERENCES = 16  # codes that the latent map is fitted to; of 256×256 images each has 32 MB


def transfer_measures(
    space: StyleSpace, made: np.ndarray, content: np.ndarray, style: np.ndarray, masks: np.ndarray | None = None
) -> dict[str, Any]:
    """What pairs say.

    Args:
        space: of styles.
        made: uint8 [N, H, W, 1], results.
        content: of each.
        style: of each.
        masks: uint8 [N, H, W], the contents' label maps, or None.

    Returns:
        "fidelity" (see `StyleSpace.fidelity`), "correlation" (see `shape_correlation`), and with masks "structure_contrast": of label 1
        against its surroundings, in results over in contents, signed (1: as strong as it was; below 0: turned round), None without it.
    """
    measures: dict[str, Any] = {
        "fidelity": space.fidelity(made, content, style),
        "correlation": shape_correlation(made, content),
    }
    if masks is not None:
        before, after = (label_contrast(images, masks, 1, signed=True) for images in (content, made))
        measures["structure_contrast"] = after / before if before and after is not None else None
    return measures


def prior_measures(space: StyleSpace, draw: Callable[[np.ndarray, bool], np.ndarray], contents: np.ndarray) -> dict[str, float]:
    """How far styles without a style image differ: "spread_coherent", "spread_iid", of which the data's own is 1, and their "ratio".

    Args:
        space: of styles.
        draw: (contents uint8 [N, H, W, 1], coherent) → the contents in styles of the prior, a seed each.
        contents: uint8 [M, H, W, 1].
    """
    spread = {
        name: float(np.mean([space.spread(draw(np.repeat(image[None], _DRAWS, 0), name == "coherent")) for image in contents]))
        for name in ("coherent", "iid")
    }
    return {
        "spread_coherent": spread["coherent"],
        "spread_iid": spread["iid"],
        "ratio": spread["coherent"] / max(spread["iid"], 1e-9),
    }


def judge_style_transfer(
    predict: Any,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Pairs of held-out images, of unlike labels where records have any; writes the report.

    Args:
        predict: signatures of the method: pairs, and of the variational method `prior`.
        config: the method's.
        source: with the split in it.
        out: folder for the report.
        split: held-out records to judge on.
        log: `log.csv` of the run, for loss curves, or None.
        baseline: metrics of the last blessed model, for gates relative to it.

    Returns:
        What `evaluate_generation` does, "transfer" (`transfer_measures`) and "prior" (`prior_measures`).

    Raises:
        DataError: the split is empty, or all its pairs are of images with themselves.
    """
    model_class = method_info(config.slug).model_class()
    pairs = _pairs(model_class.dataset(source, config, split, config.seed), config.evaluation.samples)
    made = np.concatenate([predict(batch)["image"].numpy() for batch in _batched(pairs, config.training.batch_size)])
    known = model_class.dataset(source, config, "train", config.seed, training=False)
    train = np.concatenate([batch["content"].numpy() for batch in known])
    space = StyleSpace(train)
    more: dict[str, Any] = {
        "transfer": transfer_measures(space, made, pairs["content"], pairs["style"], pairs.get("label_map"))
    }
    first = slice(0, _SHOWN)
    rows = [Row("Content", pairs["content"][first]), Row("Style", pairs["style"][first]), Row("SYNTHETIC", made[first])]
    if "label_map" in pairs:
        rows.append(Row("Label map, of the content and of the result", pairs["label_map"][first].astype(np.uint8)))
    if config.style.variational:

        def draw(contents: np.ndarray, coherent: bool) -> np.ndarray:
            seeds = np.arange(len(contents), dtype=np.int64)
            request = {"content": contents, "seed": seeds, "coherent": np.full(len(contents), coherent)}
            return predict({name: tf.constant(value) for name, value in request.items()}, "prior")["image"].numpy()

        more["prior"] = prior_measures(space, draw, pairs["content"][:_CONTENTS])
        one = np.repeat(pairs["content"][:1], _SHOWN, 0)
        rows += [Row(f"SYNTHETIC, prior, {name}", draw(one, name == "coherent")) for name in ("coherent", "iid")]
    pictures = {"Contents in other styles": write_sheet(out / "transfer.png", "Contents in other styles", rows)}
    points = _latent_points(predict, pairs["style"], config.training.batch_size)
    if points is not None:
        labels = pairs.get("style_label", np.zeros(len(made), np.int64)).tolist()
        path = write_scatter(out / "latent_map.png", "Styles in the latent space", points, labels)
        pictures["Styles in the latent space, a colour a label: two main directions"] = path
    images = GenerationImages(real=pairs["style"], synthetic=made, train=train)
    return write_generation_report(
        out,
        f"{config.slug}: {split} split of {source.describe()['kind']}",
        images,
        extractor=default_extractor(config.evaluation.extractor_weights),
        gates=config.evaluation.gates,
        baseline=baseline,
        log=log,
        config=config.to_dict(),
        more_metrics=more,
        more_pictures=pictures,
    )


def _latent_points(predict: Any, styles: np.ndarray, batch_size: int) -> np.ndarray | None:
    """Two coordinates of each style's code, by a map of the first codes; none is kept longer. None if there are too few styles."""
    if len(styles) < 3:
        return None

    def codes(images: np.ndarray) -> np.ndarray:
        answers = [predict(batch, "code") for batch in _batched({"style": images}, batch_size)]
        return np.concatenate([flattened_codes({name: z.numpy() for name, z in answer.items()}) for answer in answers])

    found = LatentMap(codes(styles[:_REFERENCES]))
    return np.concatenate([found(codes(styles[i : i + batch_size])) for i in range(0, len(styles), batch_size)])


def _pairs(dataset: tf.data.Dataset, limit: int) -> dict[str, np.ndarray]:
    """Pairs of unlike labels, or of unlike images if there are no labels or all are alike."""
    batches = list(dataset.as_numpy_iterator())
    if not batches:
        raise DataError("the split holds no records to judge on")
    everything = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    kept = (everything["content"] != everything["style"]).any((1, 2, 3))
    if "style_label" in everything:
        unlike = everything["content_label"] != everything["style_label"]
        kept = unlike if unlike.any() else kept
    if not kept.any():
        raise DataError("the split holds no two different images, so that there is nothing to transfer")
    return {name: values[kept][:limit] for name, values in everything.items()}


def _batched(values: Mapping[str, np.ndarray], size: int) -> list[dict[str, tf.Tensor]]:
    count = len(next(iter(values.values())))
    return [
        {name: tf.constant(value[first : first + size]) for name, value in values.items()} for first in range(0, count, size)
    ]
