"""One image to one: does a generator copy its training images, does it make the same image again and again?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from medsynth_tf.data.gan_protocol_config import FlagConfig, StructureConfig
from medsynth_tf.metrics.msssim import max_ms_ssim
from medsynth_tf.metrics.template_matching import max_template_match

QUANTILES = (5, 25, 50, 75, 95)

Measure = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Similarities:
    """The greatest similarity of each image with others, each [N].

    Attributes:
        synthetic_real: S_R, of synthetic images with real training images.
        synthetic_synthetic: S_S, with other synthetic images.
        real_real: R_R, of real training images with other real training images.
    """

    synthetic_real: np.ndarray
    synthetic_synthetic: np.ndarray
    real_real: np.ndarray

    def quantiles(self) -> dict[str, dict[str, float]]:
        """By kind: "q5" … "q95"."""
        return {name: {f"q{q}": float(np.percentile(values, q)) for q in QUANTILES} for name, values in vars(self).items()}


def measures(settings: StructureConfig) -> dict[str, Measure]:
    """Name → (images, others, which of the others each image is itself, or None) → greatest similarities [N]."""
    found: dict[str, Measure] = {
        "ms_ssim": lambda images, others, own: max_ms_ssim(images, others, settings.scales, settings.window, own)
    }
    if settings.template_matching:
        found["template_matching"] = lambda images, others, own: max_template_match(images, others, settings.mosaic, own)
    return found


def within(images: np.ndarray, settings: StructureConfig) -> dict[str, np.ndarray]:
    """The greatest similarity of images with others of their own set, by measure: R_R of RTr, S_S of STs.

    Args:
        images: [N, H, W, C]; an even choice of `settings.queries` of them is compared with all others.
        settings: of the measures.

    Raises:
        DataError: images are too small for MS-SSIM's scales, or there is but one.
    """
    asked = _spread(len(images), settings.queries)
    return {name: measure(images[asked], images, asked) for name, measure in measures(settings).items()}


def between(synthetic: np.ndarray, real: np.ndarray, settings: StructureConfig) -> dict[str, np.ndarray]:
    """The greatest similarity of synthetic images with real ones, by measure; arguments as `within`'s, real images are RTr."""
    asked = _spread(len(synthetic), settings.queries)
    return {name: measure(synthetic[asked], real, None) for name, measure in measures(settings).items()}


def compare(
    synthetic: np.ndarray, real: np.ndarray, settings: StructureConfig, real_real: dict[str, np.ndarray] | None = None
) -> dict[str, Similarities]:
    """S_R, S_S and R_R by measure: "ms_ssim" and, if asked for, "template_matching".

    Args:
        synthetic: STs, [N, H, W, C].
        real: RTr, [M, H, W, C].
        settings: of both measures.
        real_real: `within` of the real images where it is known already: it is the same for all generators.

    Raises:
        DataError: as `within`.
    """
    known = within(real, settings) if real_real is None else real_real
    across, among = between(synthetic, real, settings), within(synthetic, settings)
    return {name: Similarities(across[name], among[name], known[name]) for name in known}


def flags(similarities: Similarities, settings: FlagConfig) -> dict[str, bool]:
    """`memorisation`: the median S_R is above the median R_R by more than the margin, or nearly 1. `collapse`: the median S_S is
    above the median R_R by more than the margin."""
    copied, alike, usual = (
        float(np.median(values))
        for values in (similarities.synthetic_real, similarities.synthetic_synthetic, similarities.real_real)
    )
    return {
        "memorisation": copied > usual + settings.margin or copied > 1.0 - settings.near_one,
        "collapse": alike > usual + settings.margin,
    }


def _spread(length: int, count: int | None) -> np.ndarray:
    """Indices of at most `count` of `length`, evenly spread."""
    kept = length if count is None else min(count, length)
    return np.arange(kept) * length // kept
