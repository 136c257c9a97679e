"""The whole comparison: for each class, each generator, each run an evaluator; structure and picture once; flags and ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.gan_protocol_config import GANProtocolConfig
from medsynth_tf.evaluation.gan_eval import structure
from medsynth_tf.evaluation.gan_eval.discriminability import Run, median_run, one_run, summary
from medsynth_tf.evaluation.gan_eval.evaluator import Evaluator
from medsynth_tf.evaluation.gan_eval.images import Generator, RealImages
from medsynth_tf.evaluation.gan_eval.structure import Similarities
from medsynth_tf.evaluation.gan_eval.visual import Projection, project
from medsynth_tf.metrics.arrays import as_unit_float
from medsynth_tf.metrics.extractors import Extractor
from medsynth_tf.metrics.gaussian_distances import expected_mahalanobis
from medsynth_tf.metrics.tfgan import frechet_distance

RANKED = ("recall", "specificity", "mahalanobis", "frechet")  # the paper's table 4; lower is better

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A generator on a class.

    Attributes:
        runs: one an evaluator.
        similarities: by measure.
        projection: of the run whose balanced accuracy is the median.
        examples: the first images of STs of the first run, float32 [N, H, W, C].
        fid: Fréchet distance in the features of a given extractor, for comparison; None without one.
        flags: `memorisation` and `collapse`, by MS-SSIM, and `evaluator_at_chance`.
        flags_of: the first two by each measure.
    """

    runs: Sequence[Run]
    similarities: Mapping[str, Similarities]
    projection: Projection
    examples: np.ndarray
    fid: float | None
    flags: Mapping[str, bool]
    flags_of: Mapping[str, Mapping[str, bool]]

    def values(self) -> dict[str, Any]:
        """Plain values for JSON, without arrays but those of single runs."""
        found: dict[str, Any] = {"scores": summary(self.runs), "flags": dict(self.flags)}
        found["structure"] = {
            name: {**each.quantiles(), "flags": self.flags_of[name]} for name, each in self.similarities.items()
        }
        found["visual"] = self.projection.summary()
        found["runs"] = [run.scores for run in self.runs]
        if self.fid is not None:
            found["fid"] = self.fid
        return found


@dataclasses.dataclass(frozen=True)
class Group:
    """All generators on one class, or on all together.

    Attributes:
        label: the class; None: all together.
        real: numbers of real images, "train" and "test".
        expected_mahalanobis: what a perfect generator's would be in plain covariances of Gaussian features; None: not defined.
        generators: by name.
    """

    label: int | None
    real: Mapping[str, int]
    expected_mahalanobis: float | None
    generators: Mapping[str, Judged]

    @property
    def name(self) -> str:
        """As it stands in tables and file names."""
        return "pooled" if self.label is None else f"class_{self.label}"

    def ranking(self) -> dict[str, dict[str, float]]:
        """Generator → rank by each of the paper's four scores (1 is best; equals share the mean) and their mean. No single score is
        prescribed."""
        names = list(self.generators)
        ranks = {
            score: rankdata([np.mean([run.scores[score] for run in judged.runs]) for judged in self.generators.values()])
            for score in RANKED
        }
        by_name = {name: {score: float(ranks[score][place]) for score in RANKED} for place, name in enumerate(names)}
        return {name: {**each, "mean": float(np.mean(list(each.values())))} for name, each in by_name.items()}

    def warnings(self) -> list[str]:
        """What must be read with care."""
        found = []
        for name, judged in self.generators.items():
            where = f"{name}, {self.name.replace('_', ' ')}"
            if judged.flags["memorisation"]:
                found.append(f"{where}: memorisation: synthetic images are as near to training images as copies would be")
            if judged.flags["collapse"]:
                found.append(f"{where}: mode collapse: synthetic images are more alike than real ones")
            if judged.flags["evaluator_at_chance"]:
                found.append(
                    f"{where}: evaluator at chance: recall and specificity alone say nothing, and distances are near 0"
                )
        return found


def compare_generators(
    generators: Sequence[Generator],
    real: RealImages,
    protocol: GANProtocolConfig,
    seed: int = 0,
    *,
    extractor: Extractor | None = None,
    progress: Progress = lambda _: None,
) -> list[Group]:
    """Puts generators through the protocol.

    Args:
        generators: with different names. One is judged on the classes that it can make.
        real: RTr and RTs.
        protocol: settings.
        seed: of evaluators, floors and classifiers; generators have their own.
        extractor: if given, `fid` in its features is reported too. Of networks that were trained on photographs it says little here.
        progress: told what is being done.

    Returns:
        A group a class, or one of all.

    Raises:
        DataError: names are not unique, no class occurs in both parts, images are of other sizes.
    """
    names = [generator.name for generator in generators]
    if len(set(names)) < len(names) or not names:
        raise DataError(f"generators must have different names, and there must be one: {names}")
    labels: list[int | None] = list(real.labels) if protocol.by_class else [None]
    if not labels:
        raise DataError("no class has real images both to train and to test with")
    if not protocol.by_class:
        for generator in generators:
            known = generator.labels()
            if known is not None and set(known) != set(real.labels):
                raise DataError(f"{generator.name} makes class {known}, real images are of {real.labels}: compare by class")
    evaluator = Evaluator(protocol.evaluator, real.shape, protocol.activated)
    groups = []
    for label in labels:
        able = [each for each in generators if label is None or (known := each.labels()) is None or label in known]
        if able:
            groups.append(_group(able, real.of(label), label, evaluator, protocol, seed, extractor, progress))
    if not groups:
        raise DataError(f"no generator makes any of the classes {labels}")
    return groups


def _group(
    generators: Sequence[Generator],
    real: tuple[np.ndarray, np.ndarray],
    label: int | None,
    evaluator: Evaluator,
    protocol: GANProtocolConfig,
    seed: int,
    extractor: Extractor | None,
    progress: Progress,
) -> Group:
    train, test = real
    if min(len(train), len(test)) < 2:
        raise DataError(f"class {label}: {len(train)} real training and {len(test)} test images, at least 2 of each needed")
    real_real = structure.within(train, protocol.structure)
    runs: dict[str, list[Run]] = {}
    drawn: dict[str, np.ndarray] = {}
    for generator in generators:
        runs[generator.name] = []
        for number in range(protocol.runs):
            draw = number if protocol.redraw else 0
            synthetic = (
                generator.draw("train", draw, len(train), label),
                generator.draw("test", draw, len(test), label),
            )
            if synthetic[0].shape[1:] != train.shape[1:]:
                sizes = f"{list(synthetic[0].shape[1:])}, real ones {list(train.shape[1:])}"
                raise DataError(f"images of {generator.name} are {sizes}: sizes must be the same")
            drawn.setdefault(generator.name, synthetic[1])
            place = ("gan_eval", generator.name, "pooled" if label is None else label, number)
            runs[generator.name].append(one_run(evaluator, protocol, real, synthetic, derive_seed(seed, *place)))
            scores = runs[generator.name][-1].scores
            progress(
                f"{generator.name}, {'pooled' if label is None else f'class {label}'}, run {number + 1} of {protocol.runs}: "
                f"balanced accuracy {scores['balanced_accuracy']:.3f}, Fréchet {scores['frechet']:.4g}"
            )
    chosen = {name: each[median_run(each)] for name, each in runs.items()}
    projections = project({name: (run.real, run.synthetic) for name, run in chosen.items()}, protocol.align)
    judged = {}
    for name, synthetic_test in drawn.items():
        similarities = structure.compare(synthetic_test, train, protocol.structure, real_real)
        flags_of = {measure: structure.flags(each, protocol.flags) for measure, each in similarities.items()}
        balanced = float(np.mean([run.scores["balanced_accuracy"] for run in runs[name]]))
        judged[name] = Judged(
            runs=runs[name],
            similarities=similarities,
            projection=projections[name],
            examples=synthetic_test[:12],
            fid=None if extractor is None else _fid(extractor, test, synthetic_test),
            flags={**flags_of["ms_ssim"], "evaluator_at_chance": balanced < protocol.flags.chance},
            flags_of=flags_of,
        )
    expected = expected_mahalanobis(len(test), protocol.evaluator.features)
    return Group(label, {"train": len(train), "test": len(test)}, expected, judged)


def _fid(extractor: Extractor, real: np.ndarray, synthetic: np.ndarray) -> float:
    return frechet_distance(*(extractor(np.rint(255 * as_unit_float(images)).astype(np.uint8)) for images in (real, synthetic)))
