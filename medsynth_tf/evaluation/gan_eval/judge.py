"""Puts trained and exported models, and images in files, through the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import DataError
from medsynth_tf.core.registry import load_any_config
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.gan_eval.images import Generator, RealImages, SeededGenerator, read_pool
from medsynth_tf.evaluation.gan_eval.protocol import Group, Progress, compare_generators
from medsynth_tf.evaluation.gan_eval.report import scores_by_class, write_comparison, write_details
from medsynth_tf.evaluation.generation import GenerationImages, write_generation_report
from medsynth_tf.methods.generation.gan_eval.config import GANEvalConfig
from medsynth_tf.methods.generation.gan_eval.data import batches, keys_of
from medsynth_tf.methods.saving import load
from medsynth_tf.metrics.extractors import InceptionExtractor, default_extractor

_SEEDED = {"seed", "label"}  # inputs that the protocol can give


def real_images(source: Source, config: GANEvalConfig, split: str = "test", labels: list[int] | None = None) -> RealImages:
    """RTr, the training split, and RTs, a held-out one, prepared as gan_eval's GANs see them but not augmented.

    Args:
        source: where records come from.
        config: size, intensity, classes and splits.
        split: the held-out one.
        labels: classes; None: all.

    Raises:
        DataError: a split is empty, or one patient is in both.
    """
    parts: dict[str, Any] = {}
    for part, name in (("train", "train"), ("test", split)):
        wanted = list(range(config.classes)) if labels is None else labels
        keys = keys_of(source, config, name, wanted)
        found = batches(source, config, name, config.seed, 0, 1, training=False, labels=wanted)
        images, classes = zip(*((batch["image"].numpy(), batch["label"].numpy()) for batch in found))
        parts |= {part: np.concatenate(images), f"{part}_labels": np.concatenate(classes)}
        parts[f"{part}_patients"] = np.array([key.patient_id for key in keys])
    return RealImages(**parts)


def judge_gan(
    predict: Any,
    config: GANEvalConfig,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The protocol for the one GAN that was trained, in the report that all methods have.

    Returns:
        The metrics of `write_generation_report`, and means over the classes that it makes: `discriminability.*`; `distance.*`, with
        floors and `<name>_over_floor` (None where the floor is 0); `structure.*`, medians of MS-SSIM; `flags.*`, 1 where any class
        has it.
    """
    real = real_images(source, config, split, config.labels)

    def sample(seeds: np.ndarray, label: int | None) -> np.ndarray:
        labels = np.resize(config.labels, len(seeds)) if label is None else np.full(len(seeds), label)
        return predict({"seed": tf.constant(seeds), "label": tf.constant(labels, tf.int64)})["image"].numpy()

    generator = SeededGenerator(config.gan, sample, config.seed, config.labels)
    groups = compare_generators([generator], real, config.protocol, config.seed)
    labels = real.labels
    count = config.evaluation.samples
    asked = np.resize(labels, count)
    synthetic = np.concatenate(
        [
            sample(generator.seeds("page", 0, int((asked == label).sum()), label), label)
            for label in labels
            if (asked == label).any()
        ]
    )
    pictures = write_details(out, groups, {group.label: real.of(group.label)[1] for group in groups})
    metrics = _over_classes(groups, config.gan)
    warnings = [warning for group in groups for warning in group.warnings()]
    return write_generation_report(
        out,
        f"{config.slug}, {config.gan}: {split} split of {source.describe()['kind']}",
        GenerationImages(real=real.test, synthetic=synthetic, train=real.train),
        extractor=default_extractor(config.evaluation.extractor_weights),
        gates=config.evaluation.gates,
        baseline=baseline,
        log=log,
        config=config.to_dict(),
        more_metrics={**metrics, "protocol_warnings": "; ".join(warnings) or "none"},
        more_pictures=pictures,
    )


def compare_models(
    models: Mapping[str, str | Path],
    source: Source,
    config: GANEvalConfig,
    out: str | Path,
    split: str = "test",
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Compares saved models, exports and images in files against a source, and writes the report of `write_comparison`.

    Args:
        models: name → a folder that `medsynth train` or `export` wrote, whose `serving_default` takes `seed` and perhaps `label` and
            gives `image`; or a folder, `.npy` or `.npz` file of images.
        source: real images; its training split is what the generators were trained on.
        config: protocol, size, classes and split; of gan_eval, whatever methods the models are of.
        out: folder for the report.
        split: the held-out one.
        progress: told what is being done.

    Returns:
        What is in `metrics.json`.

    Raises:
        DataError: a model needs other inputs, makes images of another size, or was trained on patients of the held-out split.
    """
    real = real_images(source, config, split)
    held_out = set(real.test_patients.tolist())
    generators = [_generator(name, Path(path), source, config, real, held_out) for name, path in models.items()]
    weights = config.evaluation.extractor_weights
    extractor = None if weights is None else InceptionExtractor(weights)
    groups = compare_generators(generators, real, config.protocol, config.seed, extractor=extractor, progress=progress)
    title = f"{', '.join(models)}: {split} split of {source.describe()['kind']}"
    return write_comparison(out, title, groups, config.protocol, {group.label: real.of(group.label)[1] for group in groups})


def _generator(name: str, path: Path, source: Source, config: GANEvalConfig, real: RealImages, held_out: set[str]) -> Generator:
    if not path.exists():
        raise DataError(f"model {name}: {path} does not exist")
    if not (path / "config.yaml").is_file():
        return read_pool(name, path, real.shape, config.seed)
    own = load_any_config(path / "config.yaml")
    trained_on = source.split("train", own.data.split_fractions, own.seed)
    leaked = {key.patient_id for key in trained_on} & held_out
    if leaked:
        raise DataError(
            f"model {name} was trained on {len(leaked)} patient(s) of the held-out split, with seed = {own.seed} and "
            f"data.split_fractions = {list(own.data.split_fractions)}: set these"
        )
    exported = (path / "saved_model.pb").is_file()
    model = tf.saved_model.load(str(path)) if exported else load(path)
    signature = (model.signatures if exported else model.signatures())["serving_default"]
    if exported:
        inputs = set(signature.structured_input_signature[1])
    else:
        inputs = {spec.name for spec in signature.input_signature}
    if not {"seed"} <= inputs <= _SEEDED:
        wanted = ", ".join(sorted(inputs))
        raise DataError(
            f"model {name} takes {wanted}, not seeds alone: write its images by `medsynth synthesize` and give that folder"
        )
    labels = own.labels if isinstance(own, GANEvalConfig) else None
    return SeededGenerator(name, _Sampler(name, model, signature, inputs, own, real, exported), config.seed, labels)


class _Sampler:
    """A model's `serving_default` as a function of seeds."""

    def __init__(
        self, name: str, model: Any, signature: Any, inputs: set[str], own: MethodConfig, real: RealImages, exported: bool
    ):
        self.name, self.signature, self.inputs, self.real = name, signature, inputs, real
        self.model, self.averaged = model, not exported  # an export holds the averaged weights
        self.labels = own.labels if isinstance(own, GANEvalConfig) else list(range(getattr(own, "classes", 1)))

    def __call__(self, seeds: np.ndarray, label: int | None) -> np.ndarray:
        given = {"seed": tf.constant(seeds)}
        if "label" in self.inputs:
            labels = np.resize(self.labels, len(seeds)) if label is None else np.full(len(seeds), label)
            given["label"] = tf.constant(labels, tf.int64)
        if self.averaged:
            with self.model.averaged_weights():
                images = self.signature(**given)["image"].numpy()
        else:
            images = self.signature(**given)["image"].numpy()
        if images.shape[1:] != self.real.shape:
            size, channels = images.shape[1], images.shape[-1]
            raise DataError(
                f"model {self.name} makes images of {list(images.shape[1:])}, real ones are {list(self.real.shape)}: "
                f"set image_size={size} and channels={channels}"
            )
        return images


def _over_classes(groups: Sequence[Group], name: str) -> dict[str, Any]:
    rows = [group[name] for group in scores_by_class(groups).values()]

    def mean(score: str) -> float:
        return float(np.mean([row[score] for row in rows]))

    distance: dict[str, float | None] = {}
    for each in ("mahalanobis", "frechet"):
        found, least = mean(each), mean(f"{each}_floor")
        distance |= {each: found, f"{each}_floor": least, f"{each}_over_floor": found / least if least > 0.0 else None}
    kinds = ("synthetic_real", "synthetic_synthetic", "real_real")
    return {
        "discriminability": {score: mean(score) for score in ("recall", "specificity", "balanced_accuracy", "auc", "p_value")},
        "distance": distance,
        "structure": {kind: mean(f"ms_ssim_{kind}_median") for kind in kinds},
        "flags": {flag: int(any(row[flag] for row in rows)) for flag in ("memorisation", "collapse", "evaluator_at_chance")},
    }
