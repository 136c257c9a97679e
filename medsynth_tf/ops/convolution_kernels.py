"""CT slices reconstructed anew with another convolution kernel: |w|·(1 + a·|w|^b), |w| = 1 at the Nyquist frequency.

Source: Saparov et al., arXiv:2107.08543, section 2.1. a < 0 smooths, a > 0 sharpens, a = 0 leaves the slice as it is; at the Nyquist
frequency the gain is 1 + a.
"""

from __future__ import annotations

import math
from typing import Literal

import tensorflow as tf

from medsynth_tf.ops.radon import (
    filter_length,
    filtered_back_projection,
    next_power_of_two,
    zero_outside_circle,
)

AIR_HU, HIGHEST_HU = -1000.0, 3000.0
_WATER, _AIR = 1e-4, 1.2041e-6  # attenuation a pixel
AIR_ATTENUATION = _AIR / _WATER  # in units of water's

Backend = Literal["sinogram", "fourier2d"]


def to_attenuation(hounsfield: tf.Tensor) -> tf.Tensor:
    """HU → attenuation in units of water's: -1000 HU and below, as scanners pad with, to 0.012, 0 HU to 1."""
    return tf.maximum(hounsfield, AIR_HU) / 1000.0 * (1.0 - AIR_ATTENUATION) + 1.0


def to_hounsfield(attenuation: tf.Tensor) -> tf.Tensor:
    """Attenuation in units of water's → HU, not clipped."""
    return (attenuation - 1.0) * 1000.0 / (1.0 - AIR_ATTENUATION)


def kernel_gain(r: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """1 + a·r^b, what the kernel of (a, b) has more than the ramp filter; r ≥ 0, b > 0."""
    return 1.0 + a * tf.pow(r, b)


def reconstruct(
    attenuation: tf.Tensor,
    a: tf.Tensor,
    b: tf.Tensor,
    angles: int | tf.Tensor,
    *,
    circle: bool = True,
    dc_exact: bool = True,
    backend: Backend = "sinogram",
) -> tf.Tensor:
    """Slices as the kernel of (a, b) would have given them.

    Args:
        attenuation: float [B, N, N], air near 0.
        a, b: [B], each slice's own.
        angles: n of the sinogram.
        circle: what is outside the inscribed circle is taken and returned as 0.
        dc_exact: |w|^b is 0 at frequency 0. Else it is the discrete ramp's 4/(π²·P) to the b, as in the authors' code, which adds a
            constant to the slice: for a = -1, b = 0.1 and a body that fills half of the slice, some -10 HU.
        backend: 'sinogram' projects, filters and back-projects; 'fourier2d' filters the slice itself by 1 + a·min(2ρ, 1)^b, ρ its
            radial frequency in cycles per pixel: by the Fourier-slice theorem the same for as many angles as one likes.

    Returns:
        [B, N, N] in the dtype of `attenuation`.
    """
    a, b = (tf.cast(value, attenuation.dtype)[:, tf.newaxis, tf.newaxis] for value in (a, b))
    if backend == "fourier2d":
        made = _filtered(attenuation, a, b, circle)
    else:

        def kernel(r: tf.Tensor) -> tf.Tensor:
            frequency = tf.concat([tf.zeros_like(r[:, :1]), r[:, 1:]], axis=1)  # the discrete ramp is not 0 at frequency 0
            return r * kernel_gain(tf.clip_by_value(frequency, 0.0, 1.0), a, b)

        made = filtered_back_projection(attenuation, kernel, angles, circle)
    return made if dc_exact else _leaked(made, attenuation, a, b, circle)


def _filtered(images: tf.Tensor, a: tf.Tensor, b: tf.Tensor, circle: bool) -> tf.Tensor:
    """The backend 'fourier2d'; a and b [B, 1, 1]."""
    if circle:
        images = zero_outside_circle(images)
    size = tf.shape(images)[1]
    length = next_power_of_two(2 * size)  # zeros, that nothing comes round to the other side
    frequency = tf.range(length)
    frequency = tf.cast(tf.minimum(frequency, length - frequency), images.dtype) / tf.cast(length, images.dtype)
    columns = frequency[: length // 2 + 1]
    r = tf.minimum(2.0 * tf.sqrt(frequency[:, tf.newaxis] ** 2 + columns**2), 1.0)
    gain = kernel_gain(r, a, b)
    spectrum = tf.signal.rfft2d(images, [length, length])
    result = tf.signal.irfft2d(spectrum * tf.cast(gain, spectrum.dtype), [length, length])[:, :size, :size]
    result = tf.ensure_shape(result, images.shape)
    return zero_outside_circle(result) if circle else result


def _leaked(made: tf.Tensor, attenuation: tf.Tensor, a: tf.Tensor, b: tf.Tensor, circle: bool) -> tf.Tensor:
    """With what the zero frequency of all projections adds to each pixel, where |w|^b is not 0 there: π/2·a·r0^(1 + b)·Σ/P."""
    if circle:
        attenuation = zero_outside_circle(attenuation)
    length = tf.cast(filter_length(tf.shape(attenuation)[1]), attenuation.dtype)
    leak = a * tf.pow(4.0 / (math.pi**2 * length), b) * 2.0 / math.pi / length**2
    made += leak * tf.reduce_sum(attenuation, [1, 2], keepdims=True)
    return zero_outside_circle(made) if circle else made
