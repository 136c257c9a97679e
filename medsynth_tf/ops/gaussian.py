"""Gaussian filters and their derivatives on batches of images, as separable convolutions in float32."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def gaussian_kernel(sigma: float, order: int = 0, limit: int | None = None) -> np.ndarray:
    """A Gaussian or a derivative of it, sampled at whole numbers.

    Args:
        sigma: standard deviation in pixels, above 0.
        order: 0, 1 or 2: which derivative.
        limit: largest radius, the image's side for instance; the kernel ends at four standard deviations or there.

    Returns:
        float32 [2r+1]; with order 0 it sums to 1.

    Raises:
        ValueError: another order.
    """
    radius = max(1, int(4.0 * sigma + 0.5))
    radius = radius if limit is None else min(radius, limit)
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    gaussian = np.exp(-0.5 * (x / sigma) ** 2)
    gaussian /= gaussian.sum()
    if order == 0:
        kernel = gaussian
    elif order == 1:
        kernel = -x / sigma**2 * gaussian
    elif order == 2:
        kernel = (x**2 / sigma**4 - 1 / sigma**2) * gaussian
        kernel -= kernel.mean()  # the second derivative of a constant is 0, also where the tails are cut off
    else:
        raise ValueError(f"order = {order}: expected 0, 1 or 2")
    return kernel.astype(np.float32)


def separable_filter(images: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> tf.Tensor:
    """Convolves along rows and columns, each channel by itself, with mirrored edges.

    Args:
        images: [B, H, W, C].
        rows: kernel [2r+1] along the first space axis, r ≤ H: a mirror image reaches no further.
        columns: kernel [2q+1] along the second, q ≤ W.

    Returns:
        float32 [B, H, W, C].
    """
    images = tf.cast(images, tf.float32)
    for axis, kernel in ((1, rows), (2, columns)):
        radius = len(kernel) // 2
        padding = [[0, 0], [0, 0], [0, 0], [0, 0]]
        padding[axis] = [radius, radius]
        shape = [1, 1, 1, 1]
        shape[axis - 1] = len(kernel)
        # a convolution, while TensorFlow's op correlates: the kernel is turned round
        weights = tf.constant(np.ascontiguousarray(kernel[::-1]).reshape(shape))
        weights = tf.tile(weights, [1, 1, images.shape[-1], 1])
        images = tf.nn.depthwise_conv2d(tf.pad(images, padding, "SYMMETRIC"), weights, [1, 1, 1, 1], "VALID")
    return images


def gaussian_blur(images: tf.Tensor, sigma: float) -> tf.Tensor:
    """Images [B, H, W, C] smoothed by a Gaussian of `sigma` pixels (above 0), float32; constants stay as they are."""
    kernel = gaussian_kernel(sigma, limit=min(images.shape[1:3]))
    return separable_filter(images, kernel, kernel)
