"""Label maps of any size, fitted to the size a model takes."""

from __future__ import annotations

import numpy as np

OUTSIDE = 255


def fit_label_map(mask: np.ndarray, height: int, width: int, minimum_coverage: float = 0.2) -> np.ndarray:
    """`mask` at the size of the model's input, prepared as training does it.

    For a square input the mask is cropped to its field of view and padded to a square first, so that nothing is distorted.
    Thin structures survive: higher labels are painted over lower ones where they cover `minimum_coverage` of a pixel.

    Args:
        mask: uint8 [H, W]; 255 is outside the field of view.
        height, width: of the result.
        minimum_coverage: in (0, 1].

    Returns:
        uint8 [height, width].
    """
    from medsynth_tf.data.transforms import crop_to_square, resize_label_map

    if height == width:
        _, square = crop_to_square(np.zeros((*mask.shape, 1), np.uint8), mask)
        mask = square.numpy()
    labels = sorted(np.unique(mask).tolist(), key=lambda label: -1 if label == OUTSIDE else label)
    return resize_label_map(mask, (height, width), labels, minimum_coverage).numpy()
