"""Do synthetic photographs show vessels where their masks have them? A fixed filter judges, against itself on real ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.fundus import segment_vessels
from medsynth_tf.metrics.arrays import require_images
from medsynth_tf.metrics.overlap import precision_recall_f1


@dataclasses.dataclass(frozen=True)
class VesselLabels:
    """How masks tell vessels, and the images' scale.

    Attributes:
        vessel: value of vessels.
        outside: value outside the field of view.
        diameter: pixels across the whole field of view; None if the images show all of it (crops do not, see `data.fundus`).
    """

    vessel: int = 1
    outside: int = 255
    diameter: float | None = None


@dataclasses.dataclass(frozen=True)
class LabelAgreement:
    """What the filter finds against what the masks say, means over images.

    Attributes:
        dice_real: on real photographs.
        dice_synthetic: on synthetic ones.
        ratio: dice_synthetic / dice_real; None where the filter finds none of the real vessels.
        precision_synthetic: share of what is found that the mask has.
        recall_synthetic: share of what the mask has that is found.
        dice_shuffled: synthetic photographs against one another's masks, which is what a generator gets that ignores its
            mask; None for a single image.
    """

    dice_real: float
    dice_synthetic: float
    ratio: float | None
    precision_synthetic: float
    recall_synthetic: float
    dice_shuffled: float | None


def label_agreement(
    real: np.ndarray,
    real_masks: np.ndarray,
    synthetic: np.ndarray,
    synthetic_masks: np.ndarray,
    labels: VesselLabels | None = None,
) -> LabelAgreement:
    """Vessels found in photographs by `data.fundus.segment_vessels`, compared with the masks within the field of view.

    Args:
        real: uint8 [N, H, W, 3], photographs that the generator was not trained on.
        real_masks: uint8 [N, H, W].
        synthetic: uint8 [M, H, W, 3].
        synthetic_masks: uint8 [M, H, W], what each was made from.
        labels: how masks tell vessels; 1 vessel, 255 outside, whole photographs if None.

    Raises:
        DataError: sizes do not fit, or no mask of one of the sets has a vessel.
    """
    labels = labels or VesselLabels()
    found, truth = _vessels(real, real_masks, "real", labels)
    dice_real = float(precision_recall_f1(found, truth)[:, 2].mean())
    found, truth = _vessels(synthetic, synthetic_masks, "synthetic", labels)
    precision, recall, dice = precision_recall_f1(found, truth).mean(0).tolist()
    shuffled = None
    if len(found) > 1:
        shuffled = float(precision_recall_f1(found, np.roll(truth, 1, axis=0))[:, 2].mean())
    return LabelAgreement(dice_real, dice, dice / dice_real if dice_real > 0 else None, precision, recall, shuffled)


def _vessels(images: np.ndarray, masks: np.ndarray, what: str, labels: VesselLabels) -> tuple[np.ndarray, np.ndarray]:
    """Found and true vessels, bool [N, H, W]."""
    images, masks = require_images(images, f"{what} images"), np.asarray(masks)
    if images.shape[:3] != masks.shape:
        raise DataError(f"{what} images {list(images.shape)} and masks {list(masks.shape)}: expected one mask [H, W] an image")
    truth = masks == labels.vessel
    if not truth.any():
        raise DataError(f"no {what} mask has a vessel (value {labels.vessel}); values there: {np.unique(masks).tolist()[:9]}")
    found = [segment_vessels(image, mask != labels.outside, labels.diameter) for image, mask in zip(images, masks)]
    return np.stack(found), truth
