"""All measures of a generator's images in one dict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.agreement import VesselLabels, label_agreement
from medsynth_tf.evaluation.curves import read_log, write_curves
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.memorisation import FEWEST_HELD_OUT, Neighbours, memorisation
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import write_masks_and_images, write_nearest, write_real_and_synthetic
from medsynth_tf.metrics.arrays import require_images
from medsynth_tf.metrics.extractors import Extractor, default_extractor
from medsynth_tf.metrics.msssim import ms_ssim_diversity
from medsynth_tf.metrics.tfgan import frechet_distance, kernel_distance


@dataclasses.dataclass(frozen=True)
class GenerationImages:
    """What is compared, all of one size.

    Attributes:
        real: uint8 [N, H, W, C], real images that were held out of training.
        synthetic: uint8 [M, H, W, C].
        real_masks: uint8 [N, H, W] label maps, or None.
        synthetic_masks: uint8 [M, H, W], what each synthetic image was made from; None exactly if `real_masks` is.
        train: uint8 [T, H, W, C], what the generator was trained on, or None.

    Raises:
        DataError: images of other types or sizes, values that are not finite, or masks of one of the sets alone.
    """

    real: np.ndarray
    synthetic: np.ndarray
    real_masks: np.ndarray | None = None
    synthetic_masks: np.ndarray | None = None
    train: np.ndarray | None = None

    def __post_init__(self) -> None:
        real = require_images(self.real, "real images")
        require_images(self.synthetic, "synthetic images")
        for what, images in (("synthetic", self.synthetic), ("training", self.train)):
            if images is not None and images.shape[1:] != real.shape[1:]:
                sizes = f"{what} images are {list(images.shape[1:])}, real ones {list(real.shape[1:])}"
                raise DataError(f"{sizes}: sizes must be the same")
        if (self.real_masks is None) != (self.synthetic_masks is None):
            raise DataError("label agreement needs masks of both the real and the synthetic images, or of neither")


def evaluate_generation(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_masks: np.ndarray | None = None,
    synthetic_masks: np.ndarray | None = None,
    train: np.ndarray | None = None,
    *,
    extractor: Extractor | None = None,
    labels: VesselLabels | None = None,
) -> dict[str, Any]:
    """How like real images, how diverse, how true to their masks and how new synthetic images are.

    Args:
        real: and the next four as in `GenerationImages`.
        synthetic: the images to judge.
        real_masks: without masks there is no `label_agreement`.
        synthetic_masks: what the synthetic images were made from.
        train: without it there is no `memorisation`.
        extractor: features for FID, KID and nearest neighbours; `default_extractor()` if None.
        labels: how the masks tell vessels.

    Returns:
        Plain values, as JSON holds them: `extractor` (its name), `images_real`, `images_synthetic`, `fid`, `kid`,
        `ms_ssim_real`, `ms_ssim_synthetic`, `label_agreement` (fields of `LabelAgreement`), `memorisation` (`pixels` and
        `features`, each a `Neighbours.summary()`), `warnings` (list of str). A measure that needs more images than there are,
        or comes out as no number, is None, with a warning.

    Raises:
        DataError: as `GenerationImages`, and where masks do not fit their images.
    """
    images = GenerationImages(real, synthetic, real_masks, synthetic_masks, train)
    return _evaluate(images, extractor or default_extractor(), labels)[0]


def write_generation_report(
    folder: str | Path,
    title: str,
    images: GenerationImages,
    *,
    extractor: Extractor | None = None,
    labels: VesselLabels | None = None,
    label_names: Mapping[str, int] | None = None,
    gates: Sequence[str] = (),
    baseline: Mapping[str, Any] | None = None,
    log: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    more_metrics: Mapping[str, Any] | None = None,
    more_pictures: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Evaluates, and writes `index.html`, `metrics.json` and the contact sheets into a folder.

    Args:
        folder: where; made if it does not exist, files in it of these names are replaced.
        title: of the page.
        images: what is compared.
        extractor: as in `evaluate_generation`.
        labels: as in `evaluate_generation`.
        label_names: names of the label maps' values, for the sheet.
        gates: conditions that the page shows as passed or failed, see `evaluation.gates`.
        baseline: metrics of the last blessed model, for gates relative to it.
        log: `log.csv` of the run, for loss curves.
        config: the run's settings, for the page.
        more_metrics: the task's own, beside these.
        more_pictures: heading → a PNG in `folder`, after the others.

    Returns:
        What `evaluate_generation` does, and `more_metrics`.

    Raises:
        DataError: as `evaluate_generation`, and for a log that cannot be read.
    """
    folder = Path(folder)
    metrics, neighbours = _evaluate(images, extractor or default_extractor(), labels)
    metrics |= more_metrics or {}
    pictures = {
        "Real and synthetic images": write_real_and_synthetic(folder / "real_and_synthetic.png", images.real, images.synthetic)
    }
    if images.synthetic_masks is not None:
        pictures["Label maps and the images made from them"] = write_masks_and_images(
            folder / "masks_and_images.png", images.synthetic_masks, images.synthetic, label_names
        )
    if images.train is not None:
        for name, found in neighbours.items():
            pictures[f"Is anything copied? Nearest training images in {name}"] = write_nearest(
                folder / f"nearest_in_{name}.png", images.synthetic, images.train, found
            )
    if log is not None:
        pictures["Losses during training"] = write_curves(folder / "losses.png", read_log(log))
    pictures |= more_pictures or {}
    write_report(
        folder, title=title, metrics=metrics, pictures=pictures, verdicts=check_gates(metrics, gates, baseline), config=config
    )
    return metrics


def _evaluate(
    images: GenerationImages, extractor: Extractor, labels: VesselLabels | None
) -> tuple[dict[str, Any], dict[str, Neighbours]]:
    """The metrics, and nearest neighbours in `pixels` and `features`."""
    warnings: list[str] = []

    def measured(name: str, measure: Callable[..., float], *sets: np.ndarray) -> float | None:
        fewest = min(map(len, sets))
        if fewest < 2:
            warnings.append(f"{name} is not computed: it needs 2 images or more of each set, there are {fewest}")
            return None
        value = measure(*sets)
        if not math.isfinite(value):
            warnings.append(f"{name} came out as {value}, which is no result")
            return None
        return value

    real, synthetic = extractor(images.real), extractor(images.synthetic)
    if min(len(real), len(synthetic)) <= real.shape[1]:
        warnings.append(
            f"fid is biased upwards: {len(real)} real and {len(synthetic)} synthetic images for {real.shape[1]} features; "
            "covariances of full rank need more images than features"
        )
    metrics: dict[str, Any] = {
        "extractor": extractor.name,
        "images_real": len(real),
        "images_synthetic": len(synthetic),
        "fid": measured("fid", frechet_distance, real, synthetic),
        "kid": measured("kid", kernel_distance, real, synthetic),
        "ms_ssim_real": measured("ms_ssim_real", ms_ssim_diversity, images.real),
        "ms_ssim_synthetic": measured("ms_ssim_synthetic", ms_ssim_diversity, images.synthetic),
    }
    if images.real_masks is not None and images.synthetic_masks is not None:
        agreement = label_agreement(images.real, images.real_masks, images.synthetic, images.synthetic_masks, labels)
        if agreement.ratio is None:
            warnings.append("label_agreement.ratio is undefined: the filter finds none of the real images' vessels")
        metrics["label_agreement"] = dataclasses.asdict(agreement)
    neighbours: dict[str, Neighbours] = {}
    if images.train is not None:
        pixels, features = memorisation(images.synthetic, images.train, images.real, extractor)
        neighbours = {"pixels": pixels, "features": features}
        metrics["memorisation"] = {name: found.summary() for name, found in neighbours.items()}
        if len(images.real) < FEWEST_HELD_OUT:
            warnings.append(
                f"memorisation: percentiles of {len(images.real)} held-out images are those of the nearest one or two"
            )
        if (pixels.baseline == 0).any():
            warnings.append(f"{int((pixels.baseline == 0).sum())} held-out image(s) are in the training set: the split leaks")
        if pixels.copied.any():
            warnings.append(f"{int(pixels.copied.sum())} synthetic image(s) equal a training image, pixel by pixel")
    return {**metrics, "warnings": warnings}, neighbours
