"""Parallel-beam Radon transform, ramp filter and back-projection of square slices (Saparov et al., arXiv:2107.08543, section 2.1).

Geometry: n angles θᵢ = i·π/n; detector bins one pixel wide, the middle one on the ray through pixel (N//2, N//2). With
x = column - N//2 and y = row - N//2 a pixel is seen at t = x·cos θ + y·sin θ. The inscribed circle has the radius N//2 about it.

The grid stays the same under flips and transpositions, so only angles in [0, π/4] (of an odd n in [0, π/2]) are traced, for two or four
turned copies of each slice at once: coordinates are computed once for all of them, and what is gathered lies together in memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

_CHUNK = 2**20  # values of one temporary at most, unless a single angle needs more
_BLOCK = 2**24  # values of one angle's temporary at most: beyond that slices are taken in turn
_BORDER = 2  # zeros around what is sampled: samples beyond are moved into them


def inscribed_circle(size: int | tf.Tensor) -> tf.Tensor:
    """bool [N, N]: within N//2 of pixel (N//2, N//2)."""
    offset = tf.range(size) - size // 2
    return offset[:, tf.newaxis] ** 2 + offset**2 <= (size // 2) ** 2


def detector_reach(size: int | tf.Tensor, circle: bool) -> tf.Tensor:
    """h, int32 scalar: bins are -h … h, and no part of a slice falls beyond. A slice that is zero outside its circle needs fewer."""
    half = tf.convert_to_tensor(size) // 2
    if not circle:
        half = tf.cast(tf.math.ceil(math.sqrt(2.0) * tf.cast(half, tf.float64)), tf.int32)
    return half + 2


def next_power_of_two(value: int | tf.Tensor) -> tf.Tensor:
    """The smallest power of two not below `value`, an int32 scalar up to 2^30."""
    powers = tf.constant([2**exponent for exponent in range(31)], tf.int32)
    return tf.reduce_min(tf.boolean_mask(powers, powers >= value))


def filter_length(size: int | tf.Tensor) -> tf.Tensor:
    """P = max(64, 2^⌈log₂(2·⌈√2·N⌉)⌉), int32 scalar: what projections are padded to for their Fourier transform."""
    length = tf.cast(tf.math.ceil(math.sqrt(2.0) * tf.cast(size, tf.float64)), tf.int32)
    return tf.maximum(64, next_power_of_two(2 * length))


def ramp(length: int | tf.Tensor) -> tf.Tensor:
    """The band-limited ramp filter as a DFT of its taps in space (Kak and Slaney, eq. 3.61).

    Args:
        length: P, even.

    Returns:
        float64 [P/2 + 1], r(f) = 2·|f| for f = 0 … 1/2 cycles per bin: 1 at the Nyquist frequency, 4/(π²·P) and not 0 at f = 0.
    """
    offset = tf.range(length)
    offset = tf.minimum(offset, length - offset)
    odd = -1.0 / (math.pi * tf.cast(tf.maximum(offset, 1), tf.float64)) ** 2
    taps = tf.where(offset == 0, tf.constant(0.25, tf.float64), tf.where(offset % 2 == 1, odd, tf.zeros_like(odd)))
    return 2.0 * tf.math.real(tf.signal.rfft(taps))


def radon(images: tf.Tensor, angles: int | tf.Tensor, circle: bool = True) -> tf.Tensor:
    """Sums along rays, sampled bilinearly at unit steps.

    Args:
        images: float [B, N, N]; with `circle` zero outside the inscribed circle.
        angles: n.
        circle: as for `detector_reach`.

    Returns:
        Projections [B, n, 2h + 1] in the images' dtype.
    """
    dtype, batch, size = images.dtype, tf.shape(images)[0], tf.shape(images)[1]
    plan, side = _Plan.of(angles), _odd(size)
    turned = _turned(tf.pad(images, [[0, 0], [0, side - size], [0, side - size]]))[: plan.copies]
    reach, channels, width = detector_reach(size, circle), plan.copies * batch, side + 2 * _BORDER
    padded = tf.pad(turned, [[0, 0], [0, 0], [_BORDER, _BORDER], [_BORDER, _BORDER]])
    table = tf.transpose(tf.reshape(padded, [channels, width * width]))
    bins = tf.cast(tf.range(-reach, reach + 1), dtype)
    middle, last = tf.cast(side // 2 + _BORDER, dtype), tf.cast(width - _BORDER, dtype)

    def trace(chunk: tf.Tensor) -> tf.Tensor:
        """Angles [c] → [c, bins, channels]."""
        cos, sin = tf.cos(chunk)[:, tf.newaxis, tf.newaxis], tf.sin(chunk)[:, tf.newaxis, tf.newaxis]
        t, step = bins[:, tf.newaxis], bins
        x = tf.clip_by_value(t * cos - step * sin + middle, 0.0, last)
        y = tf.clip_by_value(t * sin + step * cos + middle, 0.0, last)
        left, top = tf.floor(x), tf.floor(y)
        rightward, downward = (x - left)[..., tf.newaxis], (y - top)[..., tf.newaxis]
        corner = tf.cast(top, tf.int32) * width + tf.cast(left, tf.int32)
        upper, lower = tf.gather(table, corner), tf.gather(table, corner + width)
        upper += rightward * (tf.gather(table, corner + 1) - upper)
        lower += rightward * (tf.gather(table, corner + width + 1) - lower)
        return tf.reduce_sum(upper + downward * (lower - upper), axis=2)

    length = 2 * reach + 1
    chunks = plan.chunks(length * length * channels, dtype)
    traced = tf.map_fn(trace, chunks, parallel_iterations=1, fn_output_signature=tf.TensorSpec([None, None, None], dtype))
    traced = tf.transpose(tf.reshape(traced, [-1, length, plan.copies, batch]), [0, 2, 3, 1])  # [base, copy, B, bins]
    traced = tf.gather(tf.reshape(traced, [-1, batch, length]), plan.places)
    return tf.transpose(traced, [1, 0, 2])


def back_project(projections: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Σᵢ qᵢ(x·cos θᵢ + y·sin θᵢ), interpolated linearly, 0 beyond the detector; the adjoint of `radon` up to the interpolation.

    Args:
        projections: float [B, n, 2h + 1].
        size: N.

    Returns:
        [B, N, N] in the projections' dtype.
    """
    dtype, batch = projections.dtype, tf.shape(projections)[0]
    angles, length = tf.shape(projections)[1], tf.shape(projections)[2]
    plan, side = _Plan.of(angles), _odd(size)
    channels, width = plan.copies * batch, length + 2 * _BORDER
    # the angles as base angles of the turned copies; a copy has nothing at a base angle that another copy stands for
    spread = tf.scatter_nd(
        plan.places[:, tf.newaxis], tf.transpose(projections, [1, 0, 2]), [plan.count * plan.copies, batch, length]
    )
    spread = tf.reshape(spread, [plan.count, channels, length])
    spread = tf.pad(tf.transpose(spread, [0, 2, 1]), [[0, 0], [_BORDER, _BORDER], [0, 0]])  # [base, bin, channel]
    offset = tf.cast(tf.range(side) - side // 2, dtype)
    middle, last = tf.cast(length // 2 + _BORDER, dtype), tf.cast(width - _BORDER, dtype)
    chunks = plan.chunks(side * side * channels, dtype)
    padding = tf.size(chunks) - plan.count  # the last chunk is filled up with angles that have no projections
    spread = tf.pad(spread, [[0, padding], [0, 0], [0, 0]])
    spread = tf.reshape(spread, [tf.shape(chunks)[0], tf.shape(chunks)[1] * width, channels])
    first = tf.range(tf.shape(chunks)[1])[:, tf.newaxis, tf.newaxis] * width  # where an angle's bins begin in its chunk

    def add(total: tf.Tensor, chunk: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        turn, table = chunk
        cos, sin = tf.cos(turn)[:, tf.newaxis, tf.newaxis], tf.sin(turn)[:, tf.newaxis, tf.newaxis]
        t = tf.clip_by_value(offset * cos + offset[:, tf.newaxis] * sin + middle, 0.0, last)
        below = tf.floor(t)
        place = first + tf.cast(below, tf.int32)
        left = tf.gather(table, place)
        return total + tf.reduce_sum(left + (t - below)[..., tf.newaxis] * (tf.gather(table, place + 1) - left), axis=0)

    total = tf.foldl(add, (chunks, spread), tf.zeros([side, side, channels], dtype), parallel_iterations=1)
    total = tf.reshape(tf.transpose(total, [2, 0, 1]), [plan.copies, batch, side, side])
    return _turned_back(total)[:, :size, :size]


def filtered_back_projection(
    images: tf.Tensor, kernel: Callable[[tf.Tensor], tf.Tensor], angles: int | tf.Tensor, circle: bool = True
) -> tf.Tensor:
    """Projects, filters each projection, and back-projects: π/(2n)·Σᵢ qᵢ, with q = F⁻¹(F(p)·K).

    Memory is bounded whatever the batch: slices beyond a block are taken in turn.

    Args:
        images: attenuation, float [B, N, N], air near 0.
        kernel: r float [P/2 + 1] → K, [P/2 + 1] or [B, 1, P/2 + 1]: the filter that stands for r·(1 + …), r being `ramp`.
        angles: n.
        circle: treat and return what is outside the inscribed circle as 0.

    Returns:
        [B, N, N] in the images' dtype.
    """
    size = tf.shape(images)[1]
    if circle:
        images = zero_outside_circle(images)
    response = kernel(tf.cast(ramp(filter_length(size)), images.dtype))
    response = tf.broadcast_to(response, [tf.shape(images)[0], 1, tf.shape(response)[-1]])

    def block(part: tf.Tensor, its_response: tf.Tensor) -> tf.Tensor:
        filtered = filter_projections(radon(part, angles, circle), its_response)
        return back_project(filtered, size)

    most = tf.maximum(_BLOCK // (4 * size * size), 1)
    result = _in_blocks(block, most, images, response)
    result *= math.pi / 2.0 / tf.cast(angles, images.dtype)
    result = tf.ensure_shape(result, images.shape)
    return zero_outside_circle(result) if circle else result


def filter_projections(projections: tf.Tensor, response: tf.Tensor) -> tf.Tensor:
    """F⁻¹(F(p)·K) along the detector, zero-padded to the response's length: [B, n, L] and [B, 1, P/2 + 1] → [B, n, L]."""
    length = 2 * (tf.shape(response)[-1] - 1)
    spectrum = tf.signal.rfft(projections, [length])
    filtered = tf.signal.irfft(spectrum * tf.cast(response, spectrum.dtype), [length])
    return filtered[..., : tf.shape(projections)[-1]]


def zero_outside_circle(images: tf.Tensor) -> tf.Tensor:
    """[B, N, N] with 0 outside the inscribed circle."""
    return tf.where(inscribed_circle(tf.shape(images)[1]), images, tf.zeros([], images.dtype))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which base angle and which turned copy of the slice stands for each angle.

    Attributes:
        angles: n.
        count: of base angles, θ₀ … of those i·π/n.
        copies: 4 of an even n, 2 of an odd one.
        places: int32 [n], base angle · copies + copy.
    """

    angles: tf.Tensor
    count: tf.Tensor
    copies: tf.Tensor
    places: tf.Tensor

    @classmethod
    def of(cls, angles: int | tf.Tensor) -> _Plan:
        n = tf.convert_to_tensor(angles)
        half, k = n // 2, tf.range(n)
        even = tf.stack(
            [
                tf.where(k <= n // 4, k, tf.where(k <= half, half - k, tf.where(k <= half + n // 4, k - half, n - k))),
                tf.where(k <= n // 4, 0, tf.where(k <= half, 2, tf.where(k <= half + n // 4, 3, 1))),
            ]
        )
        odd = tf.stack([tf.where(k <= half, k, n - k), tf.where(k <= half, 0, 1)])
        is_even = n % 2 == 0
        copies = tf.where(is_even, 4, 2)
        base, copy = tf.unstack(tf.where(is_even, even, odd))
        return cls(n, tf.where(is_even, n // 4, half) + 1, copies, base * copies + copy)

    def chunks(self, values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Base angles in radians [m, c], the last ones beyond `count`; c of them have at most `_CHUNK` values of `values` each."""
        size = tf.clip_by_value(_CHUNK // values, 1, self.count)
        number = -(-self.count // size)
        angles = tf.range(number * size)
        return tf.reshape(tf.cast(angles, dtype) * math.pi / tf.cast(self.angles, dtype), [number, size])


def _odd(size: int | tf.Tensor) -> tf.Tensor:
    """N or N + 1: with another row and column of zeros the middle of an even slice is a pixel, so that turned copies have the same."""
    return 2 * (tf.convert_to_tensor(size) // 2) + 1


def _turned(images: tf.Tensor) -> tf.Tensor:
    """[B, M, M] → [4, B, M, M], copies of which angle θ shows the angles θ, π - θ, π/2 - θ, π/2 + θ of the images."""
    flipped = tf.reverse(images, [2])
    return tf.stack([images, flipped, tf.transpose(images, [0, 2, 1]), tf.transpose(flipped, [0, 2, 1])])


def _turned_back(copies: tf.Tensor) -> tf.Tensor:
    """[2 or 4, B, M, M] → [B, M, M]: the sum of the copies, each turned back."""
    total = copies[0] + tf.reverse(copies[1], [2])
    others = copies[2:]
    transposed = tf.transpose(others, [0, 1, 3, 2])
    back = tf.concat([transposed[:1], tf.reverse(transposed[1:], [3])], axis=0)
    return total + tf.reduce_sum(back, axis=0)


def _in_blocks(function: Callable[..., tf.Tensor], most: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
    """`function` of at most `most` entries at a time, one block after the other."""
    batch = tf.shape(inputs[0])[0]
    blocks = -(-batch // most)
    results = tf.TensorArray(inputs[0].dtype, size=blocks, infer_shape=False, element_shape=[None, None, None])

    def step(index: tf.Tensor, gathered: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        part = [value[index * most : (index + 1) * most] for value in inputs]
        return index + 1, gathered.write(index, function(*part))

    _, results = tf.while_loop(lambda index, _: index < blocks, step, (0, results), parallel_iterations=1)
    return results.concat()
