"""Parallel-beam projection, ramp filter and back-projection of square slices (Saparov et al., arXiv:2107.08543, section 2.1).

Geometry: n angles θᵢ = i·π/n. With x = column - N//2 and y = row - N//2 a pixel is seen at t = x·cos θ + y·sin θ; the inscribed
circle has the radius N//2 about pixel (N//2, N//2). Bins of a detector are numbered by where their rays cross the slice's middle
row, or, of angles nearer to π/2, its middle column: bin u is at t = u·cos θ, or u·sin θ (a linogram: Edholm and Herman, IEEE TMI 6,
1987). From one row to the next such rays move by a constant. So a projection is the sum of all rows, each moved by its own shift,
and a back-projection is made of rows likewise. Shifts are turns of phase: interpolation is trigonometric, what lies below the
slice's Nyquist frequency loses nothing, and each operation is the exact transpose of the other. Opposite slopes share their sines
and cosines: projections of s and -s are differences and sums of those of the slice's even and odd part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

_CHUNK = 2**19  # sines of one temporary at most, unless a single frequency needs more
_BLOCK = 2**24  # values of one temporary of a whole slice at most: beyond that slices are taken in turn


def inscribed_circle(size: int | tf.Tensor) -> tf.Tensor:
    """bool [N, N]: within N//2 of pixel (N//2, N//2)."""
    offset = tf.range(size) - size // 2
    return offset[:, tf.newaxis] ** 2 + offset**2 <= (size // 2) ** 2


def next_power_of_two(value: int | tf.Tensor) -> tf.Tensor:
    """The smallest power of two not below `value`, an int32 scalar up to 2^30."""
    powers = tf.constant([2**exponent for exponent in range(31)], tf.int32)
    return tf.reduce_min(tf.boolean_mask(powers, powers >= value))


def filter_length(size: int | tf.Tensor, circle: bool = True) -> tf.Tensor:
    """P, int32 scalar: bins of a projection, with zeros enough that filters do not come round to its other end.

    Of the inscribed circle max(64, 2^⌈log₂(2·⌈√2·N⌉)⌉), the paper's; of a whole square, whose corners reach farther, the same with 2
    in place of √2.
    """
    length = tf.cast(tf.math.ceil((math.sqrt(2.0) if circle else 2.0) * tf.cast(size, tf.float64)), tf.int32)
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
    """Line integrals.

    Args:
        images: float [B, N, N]; with `circle` zero outside the inscribed circle.
        angles: n.
        circle: as for `filter_length`.

    Returns:
        Projections [B, n, P] in the images' dtype; entry u + P/2 is bin u.
    """
    size = tf.shape(images)[1]
    views, length = _Views.of(angles), filter_length(size, circle)
    found = []
    for slopes, opposite, slices in zip(views.slopes, views.opposite, _both_ways(images)):
        even, odd = _by_frequency(_project, slopes, size, length, *_halves(slices, length))
        even, turned = _joined(even), _times_i(_joined(odd))  # [frequency, slope, B]
        found += [even - turned, (even + turned)[:, opposite:]]
    spectra = tf.gather(tf.concat(found, axis=1), tf.math.invert_permutation(views.order), axis=1)
    projections = tf.signal.irfft(tf.transpose(spectra, [2, 1, 0]), [length]) / tf.cast(views.spacing, images.dtype)
    return tf.roll(projections, length // 2 - size // 2, axis=2)  # so far bin 0 was at the slice's middle column


def back_project(projections: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Σᵢ qᵢ(x·cos θᵢ + y·sin θᵢ): the transpose of `radon` times the spacing of each projection's bins.

    Args:
        projections: float [B, n, P], as `radon` returns them.
        size: N.

    Returns:
        [B, N, N] in the projections' dtype.
    """
    angles, length = tf.shape(projections)[1], tf.shape(projections)[2]
    views, middle = _Views.of(angles), tf.convert_to_tensor(size) // 2
    spectra = tf.signal.rfft(tf.roll(projections, middle - length // 2, axis=2), [length])
    spectra = tf.gather(tf.transpose(spectra, [2, 1, 0]), views.order, axis=1)  # [frequency, angle, B]
    total, first = [], 0
    for slopes, opposite in zip(views.slopes, views.opposite):
        last = first + 2 * tf.size(slopes) - opposite
        one, other = spectra[:, first : first + tf.size(slopes)], spectra[:, first + tf.size(slopes) : last]
        other = tf.pad(other, [[0, 0], [opposite, 0], [0, 0]])
        sums, differences = _parts(one + other), _parts(_times_i(one - other))
        total.append(_rows(*_by_frequency(_spread, slopes, size, length, sums, differences), size, length))
        first = last
    return (total[0] + tf.transpose(total[1], [0, 2, 1]))[:, :size, :size]


def filtered_back_projection(
    images: tf.Tensor, kernel: Callable[[tf.Tensor], tf.Tensor], angles: int | tf.Tensor, circle: bool = True
) -> tf.Tensor:
    """Projects, filters each projection, and back-projects: π/(2n)·Σᵢ qᵢ, with q = F⁻¹(F(p)·K).

    It is `back_project` of the filtered `radon`, one frequency after the other, with what the usual implementation loses on average
    (see `linear_sampling`), since kernels are chosen by what that one gives. Memory is bounded whatever the batch: slices beyond a
    block are taken in turn.

    Args:
        images: attenuation, float [B, N, N], air near 0.
        kernel: r float [A, P/2 + 1] → K, [A, P/2 + 1] or [B, A, P/2 + 1]: the filter that stands for r·(1 + …), for A of the angles
            (the others are their mirror images). r is `ramp` over an angle's spacing of bins, hence 2|f| in cycles per pixel; up to
            √2, since a slice's oblique frequencies reach farther.
        angles: n.
        circle: treat and return what is outside the inscribed circle as 0.

    Returns:
        [B, N, N] in the images' dtype.
    """
    size, dtype = tf.shape(images)[1], images.dtype
    if circle:
        images = zero_outside_circle(images)
    views, length = _Views.of(angles), filter_length(size, circle)
    cycles = tf.cast(tf.range(length // 2 + 1), tf.float64) / tf.cast(length, tf.float64)
    responses = []
    for slopes, opposite in zip(views.slopes, views.opposite):
        spacing = 1.0 / tf.sqrt(1.0 + slopes[:, tf.newaxis] ** 2)
        response = kernel(tf.cast(ramp(length) / spacing, dtype)) * tf.cast(linear_sampling(cycles, slopes), dtype)
        # each slope stands for its opposite too; that is for itself alone where it is 0
        alone = (tf.range(tf.size(slopes)) < opposite)[:, tf.newaxis]
        response *= tf.cast(tf.where(alone, 1.0, 2.0), dtype) / tf.cast(spacing, dtype)
        response = tf.broadcast_to(response, tf.concat([tf.shape(images)[:1], tf.shape(response)[-2:]], axis=0))
        responses.append(tf.transpose(response, [0, 2, 1]))

    def block(part: tf.Tensor, *responses: tf.Tensor) -> tf.Tensor:
        total = []
        for slopes, slices, response in zip(views.slopes, _both_ways(part), responses):
            gains = tf.transpose(response, [1, 2, 0])  # [frequency, slope, B]
            spectra = (*_halves(slices, length), tf.concat([gains, gains], axis=2))
            total.append(_rows(*_by_frequency(_project_and_spread, slopes, size, length, *spectra), size, length))
        return (total[0] + tf.transpose(total[1], [0, 2, 1]))[:, :size, :size]

    most = tf.maximum(_BLOCK // (4 * size * size), 1)
    result = _in_blocks(block, most, images, *responses)
    result *= math.pi / 2.0 / tf.cast(angles, dtype)
    result = tf.ensure_shape(result, images.shape)
    return zero_outside_circle(result) if circle else result


def linear_sampling(cycles: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """What linear interpolation leaves of each frequency, averaged over where samples fall between pixels: its kernel's transform.

    The authors' implementation samples slices bilinearly along rays, sinc²(f·cos θ)·sinc²(f·sin θ), and filtered projections linearly
    in back-projection, sinc²(f); around the Nyquist frequency little passes.

    Args:
        cycles: frequencies along rows, in cycles per pixel [F].
        slopes: |tan θ| [A].

    Returns:
        [A, F], 1 at frequency 0.
    """
    slopes = slopes[:, tf.newaxis]
    gain = tf.ones_like(slopes * cycles)
    for frequency in (cycles, slopes * cycles, tf.sqrt(1.0 + slopes**2) * cycles):
        angle = math.pi * frequency
        gain *= tf.math.divide_no_nan(tf.sin(angle), angle) + tf.cast(angle == 0.0, cycles.dtype)
    return gain**2


def zero_outside_circle(images: tf.Tensor) -> tf.Tensor:
    """[B, N, N] with 0 outside the inscribed circle."""
    return tf.where(inscribed_circle(tf.shape(images)[1]), images, tf.zeros([], images.dtype))


@dataclasses.dataclass(frozen=True)
class _Views:
    """The angles in two families: rays nearer to columns, and those nearer to rows, which are seen in the transposed slice.

    Attributes:
        slopes: of each family, float64 [A]: |tan θ| or |cot θ| of angles with a slope s ≥ 0, ascending.
        opposite: of each family, the first of its slopes that also has an angle of slope -s: 1, as 0 has none, or 0.
        order: int32 [n]: the angles' numbers, of each family first those of slopes s, then those of slopes -s.
        spacing: of bins, float64 [n, 1]: |cos θ| or |sin θ|, whichever is larger.
    """

    slopes: tuple[tf.Tensor, tf.Tensor]
    opposite: tuple[tf.Tensor, tf.Tensor]
    order: tf.Tensor
    spacing: tf.Tensor

    @classmethod
    def of(cls, angles: int | tf.Tensor) -> _Views:
        n = tf.convert_to_tensor(angles)
        odd = n % 2
        upright = tf.range(n // 4 + 1)  # θ and π - θ
        flat = tf.range((n - odd) // 2 - n // 4)  # π/2 - δ and π/2 + δ; of an odd n no angle is π/2 itself
        order = tf.concat([upright, n - upright[1:], n // 2 - flat, n // 2 + odd + flat[1 - odd :]], axis=0)
        step = math.pi / tf.cast(n, tf.float64)
        slopes = (
            tf.tan(step * tf.cast(upright, tf.float64)),
            tf.tan(step * (tf.cast(flat, tf.float64) + tf.cast(odd, tf.float64) / 2)),
        )
        turn = step * tf.cast(tf.range(n), tf.float64)
        spacing = tf.maximum(tf.abs(tf.cos(turn)), tf.abs(tf.sin(turn)))
        return cls(slopes, (tf.constant(1), 1 - odd), order, spacing[:, tf.newaxis])


def _both_ways(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, N, N] → the slices with an odd side, as many rows on either side of pixel N//2, and their transposes."""
    padding = 1 - tf.shape(images)[1] % 2
    images = tf.pad(images, [[0, 0], [0, padding], [0, padding]])
    return images, tf.transpose(images, [0, 2, 1])


def _parts(spectra: tf.Tensor) -> tf.Tensor:
    """Complex [·, ·, B] → real [·, ·, 2B], imaginary parts after real ones."""
    return tf.concat([tf.math.real(spectra), tf.math.imag(spectra)], axis=2)


def _joined(parts: tf.Tensor) -> tf.Tensor:
    """The inverse of `_parts`."""
    return tf.complex(*tf.split(parts, 2, axis=2))


def _times_i(spectra: tf.Tensor) -> tf.Tensor:
    return tf.complex(-tf.math.imag(spectra), tf.math.real(spectra))


def _halves(slices: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Spectra of rows y and -y, y = 0 … N//2, their sums and differences: [B, M, M] → two [P/2 + 1, N//2 + 1, 2B] of `_parts`."""
    rows = _parts(tf.transpose(tf.signal.rfft(slices, [length]), [2, 1, 0]))
    middle = tf.shape(rows)[1] // 2
    below, above = rows[:, middle:], rows[:, middle::-1]
    even = tf.concat([below[:, :1], below[:, 1:] + above[:, 1:]], axis=1)  # the middle row once
    odd = tf.concat(
        [(below - above)[:-1], tf.zeros_like(below[:1])], axis=0
    )  # a real signal has no sine at the Nyquist frequency
    return even, odd


def _rows(even: tf.Tensor, odd: tf.Tensor, size: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """The rows whose `_halves` over two these are: [B, M, M]."""
    rows = tf.concat([(even - odd)[:, :0:-1], even + odd], axis=1)
    return tf.signal.irfft(tf.transpose(_joined(rows), [2, 1, 0]), [length])[..., : 2 * (size // 2) + 1]


def _project(cos: tf.Tensor, sin: tf.Tensor, even: tf.Tensor, odd: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[c, A, N//2 + 1] and [c, N//2 + 1, 2B] → [c, A, 2B]: of projections of slopes ±s half the sum, and i/2 times the difference."""
    return tf.matmul(cos, even), tf.matmul(sin, odd)


def _spread(cos: tf.Tensor, sin: tf.Tensor, even: tf.Tensor, odd: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The transpose of `_project`."""
    return tf.matmul(cos, even, transpose_a=True), tf.matmul(sin, odd, transpose_a=True)


def _project_and_spread(
    cos: tf.Tensor, sin: tf.Tensor, even: tf.Tensor, odd: tf.Tensor, gain: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    even, odd = _project(cos, sin, even, odd)
    return _spread(cos, sin, gain * even, gain * odd)


def _by_frequency(
    function: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    slopes: tf.Tensor,
    size: tf.Tensor,
    length: tf.Tensor,
    *spectra: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`function` of cos φ and sin φ, φ = 2π·f·s·y for rows y = 0 … N//2, and of spectra, some frequencies at a time.

    Args:
        function: cos, sin [c, A, N//2 + 1] and spectra [c, ·, 2B] → two [c, ·, 2B].
        slopes: s, [A].
        size: N.
        length: P; frequencies are f = 0, 1/P, … 1/2.
        spectra: float [P/2 + 1, ·, 2B] each.

    Returns:
        Two [P/2 + 1, ·, 2B].
    """
    dtype, channels, frequencies = spectra[0].dtype, tf.shape(spectra[0])[2], length // 2 + 1
    shear = tf.cast(slopes, dtype)[:, tf.newaxis] * tf.cast(tf.range(size // 2 + 1), dtype)
    each = tf.clip_by_value(_CHUNK // tf.maximum(tf.size(shear), 1), 1, frequencies)
    chunks = -(-frequencies // each)

    def chunked(spectrum: tf.Tensor) -> tf.Tensor:
        spectrum = tf.pad(spectrum, [[0, chunks * each - frequencies], [0, 0], [0, 0]])
        return tf.reshape(spectrum, tf.concat([[chunks, each], tf.shape(spectrum)[1:]], axis=0))

    def step(chunk: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        number, *values = chunk
        frequency = tf.cast(number * each + tf.range(each), dtype) * (2.0 * math.pi / tf.cast(length, dtype))
        phase = frequency[:, tf.newaxis, tf.newaxis] * shear
        return function(tf.cos(phase), tf.sin(phase), *values)

    inputs = (tf.range(chunks), *(chunked(spectrum) for spectrum in spectra))
    found = tf.map_fn(step, inputs, fn_output_signature=(tf.TensorSpec([None] * 3, dtype),) * 2, parallel_iterations=1)
    one, other = (tf.reshape(value, [chunks * each, -1, channels])[:frequencies] for value in found)
    return one, other


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
