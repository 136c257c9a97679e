"""Feature extractors for FID, KID and nearest neighbours. Each has a name, which goes wherever its numbers go."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Protocol

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.arrays import as_unit_float, require_images


class Extractor(Protocol):
    """Images to feature vectors."""

    name: str

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 or unit float [N, H, W, 1 or 3] → float32 [N, F].

        Raises:
            DataError: no images, or not finite ones.
        """


class InceptionExtractor:
    """The 2048 pooled features of Inception v3, as FID and KID are defined on.

    Args:
        weights: Keras weights without top (`inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`), a local file.
            Nothing is ever downloaded.
        batch_size: images at a time.

    Raises:
        DataError: there is no such file, or it holds other weights.
    """

    def __init__(self, weights: str | Path, batch_size: int = 32):
        weights = Path(weights)
        if not weights.is_file():
            raise DataError(f"no file of Inception weights at {weights}; expected Keras's Inception v3 without top, .h5")
        import tensorflow as tf

        self._network = tf.keras.applications.InceptionV3(
            include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3)
        )
        try:
            self._network.load_weights(weights)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{weights}: not Keras weights of Inception v3 without top: {' '.join(str(error).split())}"
            ) from error
        self._batch_size = batch_size
        self.name = f"Inception v3 (weights sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()[:12]})"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, 2048]; images are resized to 299×299 (bilinear, antialiased) and scaled to [−1, 1]."""
        images = require_images(images, "images for Inception")
        import tensorflow as tf

        features = []
        for start in range(0, len(images), self._batch_size):
            batch = tf.convert_to_tensor(as_unit_float(images[start : start + self._batch_size]))
            batch = tf.image.resize(tf.repeat(batch, 3 // batch.shape[-1], axis=-1), (299, 299), antialias=True)
            features.append(self._network(2 * batch - 1, training=False).numpy())
        return np.concatenate(features)


class TextureExtractor:
    """The stand-in where no Inception weights are given: 55 hand-made statistics of colour, contrast and texture.

    Luminance and two opponent colours are taken apart into four octaves (Laplacian pyramid). Per octave: energy of the
    horizontal and vertical derivative and their correlation; the band's contrast, sparsity and asymmetry; each opponent
    colour's contrast and its correlation with luminance. Across octaves: correlation of luminance magnitudes, which tells
    edges from noise. Besides: mean colour in the four quadrants.

    Why not a random network: its features are unbounded and strongly correlated, so that its Fréchet distance jumps by
    orders of magnitude at times. Here every number is bounded, of order one and near zero for a middling photograph, as the
    kernel of KID wants it: contrasts in octaves (base-2 logarithms with a floor of a quarter grey level), correlations in
    quarters, colours in tenths of full scale. And with 55 of them a covariance can be had from hundreds of images instead
    of thousands.

    Blur, noise, wrong colours, grid artefacts and missing structure move it; it does not know what an organ is.
    Numbers made with it must not be compared with published FID or KID.
    """

    name = "texture statistics v1 (stand-in: no Inception weights were given)"
    least_side = 32
    octaves = 4

    def __init__(self, batch_size: int = 64):
        self._batch_size = batch_size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, 55].

        Raises:
            DataError: no images, or smaller than 32 pixels.
        """
        images = require_images(images, "images for texture statistics")
        if min(images.shape[1:3]) < self.least_side:
            raise DataError(
                f"images of {images.shape[1]}×{images.shape[2]}: texture statistics need {self.least_side} pixels a side"
            )
        batches = (images[start : start + self._batch_size] for start in range(0, len(images), self._batch_size))
        return np.concatenate([self._statistics(as_unit_float(batch)) for batch in batches])

    def _statistics(self, images: np.ndarray) -> np.ndarray:
        red, green, blue = (images[..., min(channel, images.shape[-1] - 1)] for channel in range(3))
        planes = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 1)  # [N, 3, H, W]
        features = _quadrants(planes)
        magnitudes: list[np.ndarray] = []
        for _ in range(self.octaves):
            smooth = _halved(planes)
            band = planes - _doubled(smooth, planes.shape[2:])
            features += _band_statistics(planes[:, 0], band)
            magnitudes.append(np.abs(band[:, 0]))
            planes = smooth
        for fine, coarse in itertools.pairwise(magnitudes):
            pooled = _halved(fine[:, None])[:, 0]
            features.append(_correlation(pooled - _mean(pooled), coarse - _mean(coarse)))
        return np.stack(features, 1).astype(np.float32)


def default_extractor(inception_weights: str | Path | None = None) -> Extractor:
    """Inception if a file of weights is given, else the stand-in; `name` tells which."""
    return InceptionExtractor(inception_weights) if inception_weights else TextureExtractor()


_FLOOR = 1 / 1020  # a quarter grey level: contrast below it is none


def _mean(array: np.ndarray) -> np.ndarray:
    return array.mean((-2, -1), keepdims=True)


def _octaves(energy: np.ndarray) -> np.ndarray:
    """Root of a mean square in octaves above or below a contrast of 1/32."""
    return 0.5 * np.log2(energy + _FLOOR**2) + 5


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of two [N, H, W] of mean zero, in quarters; 0 where one has no contrast to speak of."""
    product = (first * second).mean((-2, -1))
    scale = np.sqrt((first**2).mean((-2, -1)) * (second**2).mean((-2, -1)))
    return 4 * product / (scale + _FLOOR**2)


def _quadrants(planes: np.ndarray) -> list[np.ndarray]:
    """Mean colour in tenths, from a middling one."""
    middle = (0.4, 0.2, 0.2)
    half = [(slice(None, planes.shape[axis] // 2), slice(planes.shape[axis] // 2, None)) for axis in (2, 3)]
    return [
        10 * (planes[:, plane, rows, columns].mean((-2, -1)) - middle[plane])
        for plane in range(3)
        for rows in half[0]
        for columns in half[1]
    ]


def _band_statistics(luminance: np.ndarray, band: np.ndarray) -> list[np.ndarray]:
    """Ten numbers of one octave, each [N]."""
    across = luminance[:, :-1, 1:] - luminance[:, :-1, :-1]
    down = luminance[:, 1:, :-1] - luminance[:, :-1, :-1]
    light = band[:, 0]
    energy = (light**2).mean((-2, -1)) + _FLOOR**2
    features = [_octaves((across**2).mean((-2, -1))), _octaves((down**2).mean((-2, -1))), _correlation(across, down)]
    features += [
        _octaves(energy),
        10 * (np.abs(light).mean((-2, -1)) / np.sqrt(energy) - 0.55),  # 0.8 for Gaussian noise, less for sparse edges
        4 * (light * np.abs(light)).mean((-2, -1)) / energy,
    ]
    for colour in (band[:, 1], band[:, 2]):
        features += [_octaves((colour**2).mean((-2, -1))), _correlation(light, colour)]
    return features


def _halved(planes: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels of [N, C, H, W]; an odd last row or column is left out."""
    height, width = planes.shape[2] // 2 * 2, planes.shape[3] // 2 * 2
    even = planes[:, :, :height, :width]
    return (even[:, :, 0::2, 0::2] + even[:, :, 1::2, 0::2] + even[:, :, 0::2, 1::2] + even[:, :, 1::2, 1::2]) / 4


def _doubled(planes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each pixel repeated 2×2, and the last ones once more where `shape` is odd."""
    large = planes.repeat(2, axis=2).repeat(2, axis=3)
    extra = [(0, 0), (0, 0), (0, shape[0] - large.shape[2]), (0, shape[1] - large.shape[3])]
    return np.pad(large, extra, mode="edge")
