"""Six numbers that say what an ultrasound image's texture is like, and what follows from them about style transfer."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.arrays import as_unit_float, require_images

_FINE, _SHAPE = 2.0, 1.5  # widths of the Gaussians, in pixels, that leave speckle out
_LEAST = 1e-6

NAMES = ("brightness", "deviation", "log speckle", "speckle width", "speckle height", "top less bottom")


def style_descriptor(images: np.ndarray) -> np.ndarray:
    """Mean; deviation; log deviation of the residual from a Gaussian blur of 2 pixels; its correlation with itself one pixel on, along
    rows and along columns; mean of the top third less that of the bottom third.

    Args:
        images: uint8 or unit float [N, H, W, 1].

    Returns:
        float64 [N, 6].

    Raises:
        DataError: they are no grey images.
    """
    x = _grey(images)
    residual = x - _blurred(x, _FINE)
    third = max(1, x.shape[1] // 3)
    return np.stack(
        [
            x.mean((1, 2)),
            x.std((1, 2)),
            np.log(residual.std((1, 2)) + _LEAST),
            _correlation(residual[:, :, 1:], residual[:, :, :-1]),
            _correlation(residual[:, 1:], residual[:, :-1]),
            x[:, :third].mean((1, 2)) - x[:, -third:].mean((1, 2)),
        ],
        -1,
    )


class StyleSpace:
    """Distances between descriptors, each number in units of its deviation over a reference set.

    Args:
        reference: images as for `style_descriptor`, of all styles, two at least.

    Raises:
        DataError: there is one image only.
    """

    def __init__(self, reference: np.ndarray):
        if len(reference) < 2:
            raise DataError(f"styles need a reference set of two images at least, got {len(reference)}")
        deviation = style_descriptor(reference).std(0)
        self.deviation = np.where(deviation > _LEAST, deviation, 1.0)

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Of each pair of images, float64 [N]."""
        return np.linalg.norm((style_descriptor(first) - style_descriptor(second)) / self.deviation, axis=-1)

    def fidelity(self, made: np.ndarray, content: np.ndarray, style: np.ndarray) -> float:
        """Mean distance from the results to the styles over that from the contents to the styles: 0 is a perfect transfer, 1 none.

        Raises:
            DataError: contents have the styles' descriptors already.
        """
        before = self.distance(content, style).mean()
        if before == 0.0:
            raise DataError("contents and styles are alike: there is nothing to transfer")
        return float(self.distance(made, style).mean() / before)

    def spread(self, images: np.ndarray) -> float:
        """Deviation over images, a mean over the six numbers; the reference set's own is 1."""
        return float((style_descriptor(images).std(0) / self.deviation).mean())


def shape_correlation(made: np.ndarray, content: np.ndarray) -> float:
    """Correlation of results with contents, both blurred by a Gaussian of 1.5 pixels: a mean over images of one size."""
    first, second = (_blurred(_grey(images), _SHAPE) for images in (made, content))
    return float(_correlation(first, second).mean())


def _grey(images: np.ndarray) -> np.ndarray:
    images = require_images(images, "images")
    if images.shape[-1] != 1:
        raise DataError(f"images {list(images.shape)}: expected one channel")
    return as_unit_float(images)[..., 0].astype(np.float64)


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0.0, sigma, sigma))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each image with its partner, [N]; 0 where one is constant."""
    a, b = (each - each.mean((1, 2), keepdims=True) for each in (a, b))
    scale = np.sqrt((a**2).mean((1, 2)) * (b**2).mean((1, 2)))
    return (a * b).mean((1, 2)) / np.maximum(scale, _LEAST**2)
