"""What all metrics ask of the images they are given."""

from __future__ import annotations

import numpy as np

from medsynth_tf.core.errors import DataError


def require_images(images: np.ndarray, what: str, least: int = 1) -> np.ndarray:
    """`images` unchanged, if they are images.

    Args:
        images: uint8 [N, H, W, C], or float in [0, 1], with C 1 or 3.
        what: names them in the message.
        least: smallest N allowed.

    Raises:
        DataError: another shape or type, too few, a value that is not finite or, for floats, outside [0, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(f"{what}: expected images [N, H, W, 1 or 3], got {list(images.shape)}")
    if len(images) < least:
        raise DataError(f"{what}: {len(images)} image(s), at least {least} needed")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{what}: expected uint8 or floating point images, got {images.dtype}")
    for index, image in enumerate(images):  # one at a time: no temporary of the whole set's size
        if not np.isfinite(image).all():
            raise DataError(f"{what}: image {index} has values that are not finite")
        if image.min() < 0 or image.max() > 1:
            raise DataError(f"{what}: image {index} has values outside [0, 1]: {image.min():.4g} to {image.max():.4g}")
    return images


def as_unit_float(images: np.ndarray) -> np.ndarray:
    """uint8 as float32 in [0, 1]; floats as float32."""
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


def require_features(features: np.ndarray, what: str, least: int) -> np.ndarray:
    """`features` as float64 [N, F].

    Raises:
        DataError: another shape, fewer than `least` rows, or a value that is not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise DataError(f"{what}: expected features [N, F], got {list(features.shape)}")
    if len(features) < least:
        raise DataError(f"{what}: features of {len(features)} image(s), at least {least} needed")
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise DataError(f"{what}: the features of image {row} are not finite")
    return features
