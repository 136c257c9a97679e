"""Do images show a label where their masks have it? The colour of its pixels against that of the ring around them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.arrays import as_unit_float, require_images


def label_contrast(
    images: np.ndarray, masks: np.ndarray, label: int, surroundings: int = 0, gap: int = 1, width: int = 3, signed: bool = False
) -> float | None:
    """Mean over images of the mean absolute difference between a label's mean colour and its surroundings', in [0, 1].

    Args:
        images: uint8 or unit float [N, H, W, C].
        masks: uint8 [N, H, W].
        label: whose contrast.
        surroundings: label of the pixels that the ring around it may have.
        gap: pixels between label and ring, where edges are blurred.
        width: of the ring in pixels.
        signed: the label's less its surroundings', below 0 where it is darker; else the absolute difference.

    Returns:
        The mean over the images that have the label and a ring; None if none does.

    Raises:
        DataError: masks do not fit the images.
    """
    images = require_images(images, "images")
    if masks.shape != images.shape[:3]:
        raise DataError(f"masks {list(masks.shape)} do not fit images {list(images.shape)}")
    contrasts = []
    for image, mask in zip(images, masks):
        inside = mask == label
        if not inside.any():
            continue
        reach = ndimage.binary_dilation(inside, iterations=gap + width)
        near = ndimage.binary_dilation(inside, iterations=gap) if gap else inside
        ring = reach & ~near & (mask == surroundings)
        if ring.any():
            unit = as_unit_float(image)
            difference = unit[inside].mean(0) - unit[ring].mean(0)
            contrasts.append((difference if signed else np.abs(difference)).mean())
    return float(np.mean(contrasts)) if contrasts else None
