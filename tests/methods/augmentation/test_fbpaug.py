"""Card 24: the physics of the augmentation, each item by its number. Data, training and judging: test_fbpaug_training.py."""

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.interpolate import CubicSpline
from skimage import transform

from medsynth_tf.data.readers.dicom import read_dicom
from medsynth_tf.layers.filtered_back_projection import FilteredBackProjection
from medsynth_tf.ops import convolution_kernels as kernels
from medsynth_tf.ops import radon as geometry

PAIRS = [(-1.0, 0.3), (-0.5, 0.7), (20.0, 2.0), (30.0, 3.0), (10.0, 1.0)]


def phantom(size=96, seed=0, sigma=1.5):
    """A band-limited body with details, HU float32 [N, N], inside the circle."""
    rng = np.random.default_rng(seed)
    offset = np.arange(size) - size // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    image = np.where((x / (0.42 * size)) ** 2 + (y / (0.36 * size)) ** 2 < 1, 40.0, -1000.0)
    image[(np.abs(np.abs(x) - 0.19 * size) < 0.1 * size) & (np.abs(y) < 0.2 * size)] = -850.0
    for _ in range(20):
        place = rng.uniform(-0.25 * size, 0.25 * size, 2)
        image[np.hypot(x - place[0], y - place[1]) < rng.uniform(1, 4)] += rng.uniform(-200, 300)
    return ndimage.gaussian_filter(image, sigma).astype(np.float32)


def noise_in_circle(size, count=2, seed=0, dtype=np.float64):
    images = np.random.default_rng(seed).normal(size=[count, size, size]).astype(dtype)
    return geometry.zero_outside_circle(tf.constant(images)).numpy()


def coordinates(size):
    offset = np.arange(size) - size // 2
    return np.meshgrid(offset, offset, indexing="ij")


# -- M1 … M4: projection and back-projection --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
@pytest.mark.parametrize("size", [96, 95])
def test_m1_a_of_zero_leaves_the_slice_as_it_is(backend, size):
    image = phantom(size)
    made = FilteredBackProjection(backend=backend).with_kernels(image, 0.0, 1.0).numpy()
    inside = geometry.inscribed_circle(size).numpy()
    difference = (made - image)[inside]
    limit = 0.08 if backend == "sinogram" else 1e-5  # a filter of gain 1 has no errors of projection
    assert np.sqrt((difference**2).mean()) / image[inside].std() <= limit
    assert abs(difference.mean()) <= 5.0


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m2_the_output_is_affine_in_a_and_linear_in_the_image(backend):
    images = tf.constant(noise_in_circle(40))

    def made(x, a):
        return kernels.reconstruct(x, tf.constant([a, a]), tf.constant([0.7, 2.0]), 20, backend=backend).numpy()

    zero, one, five = (made(images, a) for a in (0.0, 1.0, 5.0))
    np.testing.assert_allclose(five, zero + 5 * (one - zero), atol=1e-11)
    other = tf.constant(noise_in_circle(40, seed=1))
    np.testing.assert_allclose(made(2 * images - 3 * other, 5.0), 2 * five - 3 * made(other, 5.0), atol=1e-11)


def test_m2_the_layer_changes_nothing_but_units_and_limits():
    image = phantom(48)[None]
    a, b = tf.constant([3.0]), tf.constant([1.5])
    made = kernels.reconstruct(kernels.to_attenuation(tf.constant(image)), a, b, 48)
    expected = np.clip(kernels.to_hounsfield(made), -1000, 3000)
    layer = FilteredBackProjection(backend="sinogram")
    np.testing.assert_allclose(layer.with_kernels(image, a, b), expected, atol=1e-3)


def places(angles, length):
    """t of each bin, [n, P], and the slope that rays to it are moved by from row to row, or from column to column, and which [n]."""
    turns = np.arange(angles) * math.pi / angles
    upright = np.abs(np.cos(turns)) >= np.abs(np.sin(turns)) - 1e-12
    spacing = np.where(upright, np.cos(turns), np.sin(turns))
    slopes = np.where(upright, np.sin(turns), np.cos(turns)) / spacing
    return spacing[:, None] * np.arange(-length // 2, length // 2), slopes, upright


def sorted_by(place, values):
    order = np.argsort(place)
    return place[order], values[order]


def shift(distance, length):
    """The interpolation kernel of a trigonometric polynomial with P samples a period, in closed form (Dirichlet)."""
    whole = np.abs(np.mod(distance + length / 2, length) - length / 2) < 1e-9
    angle = np.where(whole, 1.0, math.pi * distance)
    return np.where(whole, 1.0, np.sin(angle) / np.tan(angle / length) / length)


@pytest.mark.parametrize("size", [96, 97])
def test_m3_projections_of_a_disc_are_the_closed_form(size):
    radius, value, factor = 30.0, 2.0, 8
    fine = (np.arange(size * factor) + 0.5) / factor - 0.5 - size // 2
    disc = value * (fine[:, None] ** 2 + fine**2 < radius**2)
    disc = disc.reshape(size, factor, size, factor).mean((1, 3))
    for angles in (12, 7):
        projections = geometry.radon(tf.constant(disc[None]), angles).numpy()[0]
        t, _, _ = places(angles, projections.shape[1])
        closed = 2 * value * np.sqrt(np.maximum(radius**2 - t**2, 0))
        near = np.abs(t) < radius - 2
        assert np.abs(projections[near] / closed[near] - 1).max() <= 0.03


@pytest.mark.parametrize("circle", [True, False])
def test_m3_every_projection_integrates_to_the_image(circle):
    image = np.random.default_rng(0).uniform(0, 1, [1, 33, 33])
    if circle:
        image = geometry.zero_outside_circle(tf.constant(image)).numpy()
    projections = geometry.radon(tf.constant(image), 16, circle).numpy()[0]
    t, _, _ = places(*projections.shape)
    np.testing.assert_allclose(projections.sum(1) * np.abs(t[:, 1] - t[:, 0]), image.sum(), rtol=1e-10)


@pytest.mark.parametrize(("size", "angles"), [(21, 12), (20, 10), (21, 7), (21, 1), (20, 2), (16, 4)])
def test_m3_rays_and_their_order_are_those_of_a_plain_loop(size, angles):
    images = noise_in_circle(size)
    projections = geometry.radon(tf.constant(images), angles).numpy()
    t, slopes, upright = places(angles, projections.shape[-1])
    bins, offset = np.arange(-t.shape[1] // 2, t.shape[1] // 2), np.arange(size) - size // 2
    for index in range(angles):
        spacing = abs(t[index, 1] - t[index, 0])
        for image, projection in zip(images, projections[:, index]):
            lines = image if upright[index] else image.T
            expected = sum(
                shift(bins[:, None] - slopes[index] * y - offset, t.shape[1]) @ line for y, line in zip(offset, lines)
            )
            np.testing.assert_allclose(projection, expected / spacing, atol=1e-10)


def test_m3_projections_are_scikit_images():
    image = np.pad(phantom(45, sigma=2.0) + 1000.0, 10)
    angles = 20
    ours = geometry.radon(tf.constant(image[None]), angles).numpy()[0]
    theirs = transform.radon(image, np.arange(angles) * 180 / angles, circle=True).T
    t, _, _ = places(*ours.shape)
    bins = np.arange(theirs.shape[1]) - theirs.shape[1] // 2
    ours = np.array([CubicSpline(*sorted_by(place, values))(bins) for place, values in zip(t, ours)])
    # they turn the other way: angle -θ, which is π - θ seen from the other side
    turned = np.concatenate([ours[:1], ours[:0:-1, ::-1]])
    np.testing.assert_allclose(turned, theirs, atol=5e-3 * theirs.max())  # theirs is bilinear, which smooths


def test_m4_filtered_back_projection_is_scikit_images():
    image = np.pad(phantom(45, sigma=2.0) + 1000.0, 10)
    angles = 40
    degrees = np.arange(angles) * 180 / angles
    theirs = transform.iradon(transform.radon(image, degrees, circle=True), degrees, filter_name="ramp", circle=True)
    ours = geometry.filtered_back_projection(tf.constant(image[None]), lambda r: r, angles)[0].numpy()
    inside = np.hypot(*coordinates(65)) < 31
    assert np.corrcoef(ours[inside], theirs[inside])[0, 1] > 0.9999
    # what interpolation takes away is theirs too: without it the difference were as large as this
    lost = (theirs - image)[inside].std()
    assert (ours - theirs)[inside].std() < 0.35 * lost


@pytest.mark.parametrize("circle", [True, False])
@pytest.mark.parametrize(("size", "angles"), [(24, 12), (25, 9), (24, 1)])
def test_m4_filtered_back_projection_projects_filters_and_back_projects(size, angles, circle):
    images = noise_in_circle(size) if circle else np.random.default_rng(0).normal(size=[2, size, size])
    made = geometry.filtered_back_projection(tf.constant(images), lambda r: r + r**2, angles, circle).numpy()
    projections = geometry.radon(tf.constant(images), angles, circle).numpy()
    length = projections.shape[-1]
    t, _, _ = places(angles, length)
    spacing = np.abs(t[:, 1:2] - t[:, :1])
    r, cycles = geometry.ramp(length).numpy() / spacing, np.fft.rfftfreq(length) / spacing
    turns = np.arange(angles)[:, None] * math.pi / angles
    lost = (np.sinc(cycles * np.cos(turns)) * np.sinc(cycles * np.sin(turns)) * np.sinc(cycles)) ** 2
    filtered = np.fft.irfft(np.fft.rfft(projections) * (r + r**2) * lost, length)
    expected = math.pi / (2 * angles) * geometry.back_project(tf.constant(filtered), size).numpy()
    inside = geometry.inscribed_circle(size).numpy() if circle else np.ones([size, size], bool)
    np.testing.assert_allclose(made[:, inside], expected[:, inside], atol=1e-10)


def test_m4_linear_sampling_is_what_interpolation_loses_on_average():
    # a wave sampled at places anywhere between its samples, by the interpolations themselves
    for cycles, slope in ((0.1, 0.0), (0.2, 0.5), (0.35, 1.0)):
        phase = np.random.default_rng(0).uniform(0, 1, [2, 200_000])

        def kept(frequency, place):  # complex amplitude over the wave's own, linearly between the samples beside it
            wave = 2j * np.pi * frequency
            return (1 - place) * np.exp(-wave * place) + place * np.exp(wave * (1 - place))

        along, across, rays = cycles, slope * cycles, math.hypot(1, slope) * cycles
        expected = (kept(along, phase[0]) * kept(across, phase[1])).mean().real * kept(rays, phase[0]).mean().real
        gain = geometry.linear_sampling(tf.constant([cycles], tf.float64), tf.constant([slope], tf.float64)).numpy()
        np.testing.assert_allclose(gain, [[expected]], rtol=0.01)


@pytest.mark.parametrize(("size", "angles"), [(48, 24), (49, 9), (21, 1)])
def test_m4_projection_and_back_projection_are_adjoint(size, angles):
    x = tf.constant(noise_in_circle(size, 1))
    projections = geometry.radon(x, angles)
    y = tf.constant(np.random.default_rng(1).normal(size=projections.shape))
    t, _, _ = places(angles, projections.shape[-1])
    spacing = np.abs(t[:, 1:2] - t[:, :1])  # the length of a ray from row to row is one over it
    left, right = tf.reduce_sum(projections * spacing * y), tf.reduce_sum(x * geometry.back_project(y, size))
    np.testing.assert_allclose(left, right, rtol=1e-9)


@pytest.mark.parametrize(("size", "angles"), [(21, 12), (20, 10), (21, 7), (21, 1)])
def test_m4_back_projection_is_that_of_a_plain_loop(size, angles):
    length = int(geometry.filter_length(size))
    projections = np.random.default_rng(0).normal(size=[2, angles, length])
    image = geometry.back_project(tf.constant(projections), size).numpy()
    y, x = coordinates(size)
    bins = np.arange(-length // 2, length // 2)
    _, slopes, upright = places(angles, length)
    expected = np.zeros_like(image)
    for index in range(angles):
        u = x + slopes[index] * y if upright[index] else y + slopes[index] * x
        expected += np.moveaxis(shift(u[..., None] - bins, length) @ projections[:, index].T, -1, 0)
    np.testing.assert_allclose(image, expected, atol=1e-10)


def test_m4_gradients_are_the_exact_transpose():
    x = tf.constant(noise_in_circle(16, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        projections = geometry.radon(x, 6)
        weights = tf.constant(np.random.default_rng(3).normal(size=projections.shape))
        product = tf.reduce_sum(weights * projections)
    # linear: <Rx, w> = <x, Rᵀw>
    np.testing.assert_allclose(float(product), float(tf.reduce_sum(x * tape.gradient(product, x))), rtol=1e-10)


# -- M5, M6: ramp and kernels -----------------------------------------------------------------------------------------------


def test_m5_the_ramp_has_the_known_ends():
    r = geometry.ramp(512).numpy()
    assert r.shape == (257,)
    assert r[-1] == pytest.approx(1.0, abs=1e-3)
    assert r[0] == pytest.approx(4 / (math.pi**2 * 512), rel=1e-2)
    assert (r >= 0).all()
    np.testing.assert_allclose(r, 2 * np.fft.rfftfreq(512), atol=1e-3)  # 2|f|
    taps = np.fft.irfft(r / 2)
    np.testing.assert_allclose(taps[1:], taps[:0:-1], atol=1e-15)  # symmetric
    np.testing.assert_allclose(taps[[0, 1, 2, 3]], [0.25, -1 / math.pi**2, 0, -1 / (9 * math.pi**2)], atol=1e-12)


def test_m5_padding_is_the_cards():
    for size in (8, 16, 33, 64, 96, 511, 512, 700):
        length = max(64, 2 ** math.ceil(math.log2(2 * math.ceil(math.sqrt(2) * size))))
        assert int(geometry.filter_length(size)) == length


def test_m6_gain_at_the_nyquist_frequency():
    for a, b in [*PAIRS, (-1.0, 1.0)]:
        gain = kernels.kernel_gain(
            tf.constant([0.0, 0.5, 1.0], tf.float64), tf.constant(a, tf.float64), tf.constant(b, tf.float64)
        )
        np.testing.assert_allclose(gain, [1.0, 1 + a * 0.5**b, 1 + a])
    assert float(kernels.kernel_gain(tf.constant(1.0), tf.constant(-1.0), tf.constant(0.7))) == 0.0


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
@pytest.mark.parametrize("b", [0.5, 2.0])
def test_m6_high_frequencies_grow_with_a(backend, b):
    rough = np.random.default_rng(0).normal(size=[1, 48, 48]).astype(np.float32)
    a = np.array([-1.0, -0.5, 0.0, 1.0, 10.0, 40.0], np.float32)
    made = kernels.reconstruct(tf.repeat(rough, 6, 0), a, np.full(6, b, np.float32), 48, backend=backend).numpy()
    spectrum = np.abs(np.fft.fft2(made)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(48), np.fft.fftfreq(48)))
    energy = spectrum[:, frequency > 0.35].sum(1)
    assert (np.diff(energy) > 0).all()
    assert energy[0] < 0.6 * energy[2]


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m6_what_leaks_at_zero_frequency_is_a_known_constant(backend):
    images = tf.constant(np.abs(noise_in_circle(48)))
    a, b = np.array([-1.0, 10.0]), np.array([0.1, 0.5])
    exact, leaky = (
        kernels.reconstruct(images, tf.constant(a), tf.constant(b), 24, dc_exact=dc, backend=backend).numpy()
        for dc in (True, False)
    )
    # each filtered projection gets a·r0^b·r0·Σp/P more in every bin, so that π/(2n)·Σ over n angles is
    length = 256
    r0 = 4 / (math.pi**2 * length)
    constant = math.pi / 2 * a * r0 ** (1 + b) * images.numpy().sum((1, 2)) / length
    inside = geometry.inscribed_circle(48).numpy()
    difference = (leaky - exact)[:, inside]
    np.testing.assert_allclose(difference, np.repeat(constant[:, None], difference.shape[1], 1), rtol=0.02)


# -- M7, M8: one backend against the other, and turns -----------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_m7_both_backends_change_the_slice_alike(a, b):
    size = 96
    attenuation = kernels.to_attenuation(tf.constant(phantom(size, sigma=0.8)[None]))
    y, x = coordinates(size)
    inside = np.hypot(x, y) < 0.8 * (size // 2)
    changes = []
    for backend in ("sinogram", "fourier2d"):
        made, same = (
            kernels.reconstruct(attenuation, tf.constant([value]), tf.constant([b]), size, backend=backend).numpy()[0]
            for value in (a, 0.0)
        )
        changes.append((made - same)[inside])
    assert np.corrcoef(*changes)[0, 1] >= 0.9


@pytest.mark.parametrize("frequency", [0.05, 0.15])
@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m7_a_wave_gets_the_kernels_gain(backend, frequency):
    size, a, b = 128, 20.0, 1.5
    y, x = coordinates(size)
    window = np.clip(np.cos(np.pi * np.hypot(x, y) / size), 0, None) ** 2
    wave = (window * np.cos(2 * np.pi * frequency * (0.8 * x + 0.6 * y)))[None]
    made, same = (
        kernels.reconstruct(tf.constant(wave), tf.constant([value]), tf.constant([b]), size, backend=backend).numpy()[0]
        for value in (a, 0.0)
    )
    middle = np.hypot(x, y) < size / 8
    gain = (made * same)[middle].sum() / (same * same)[middle].sum()
    assert gain == pytest.approx(1 + a * (2 * frequency) ** b, rel=0.05)


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m8_turning_commutes_with_it_for_odd_sides(backend):
    x = noise_in_circle(41, 1)

    def made(image):
        return kernels.reconstruct(tf.constant(image), tf.constant([20.0]), tf.constant([2.0]), 20, backend=backend).numpy()

    one, other = made(np.rot90(x, axes=(1, 2)).copy()), np.rot90(made(x), axes=(1, 2))
    assert np.abs(one - other).max() <= 1e-12 * np.abs(other).max()


def test_m8_even_sides_turn_about_a_pixel():
    # pixel (N//2, N//2) is the middle: turned about it, an even slice comes back the same after its first row and column are left out
    x = noise_in_circle(40, 1)
    x[:, 0], x[:, :, 0] = 0, 0

    def made(image):
        return kernels.reconstruct(tf.constant(image), tf.constant([20.0]), tf.constant([2.0]), 20).numpy()[:, 1:, 1:]

    turned = x.copy()
    turned[:, 1:, 1:] = np.rot90(x[:, 1:, 1:], axes=(1, 2))
    np.testing.assert_allclose(made(turned), np.rot90(made(x), axes=(1, 2)), atol=1e-10)


# -- M9, M10: the layer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
@pytest.mark.parametrize("shape", [[32, 32], [3, 32, 32], [3, 33, 33, 1]])
def test_m9_range_shape_and_outside(backend, shape):
    images = np.random.default_rng(0).uniform(-1024, 3071, shape).astype(np.float32)
    before = images.copy()
    count = [] if len(shape) == 2 else shape[:1]
    made = FilteredBackProjection(backend=backend).with_kernels(tf.constant(images), tf.fill(count, 30.0), tf.fill(count, 3.0))
    assert made.dtype == tf.float32
    assert made.shape == shape
    np.testing.assert_array_equal(images, before)
    assert made.numpy().min() == -1000.0
    assert made.numpy().max() == 3000.0  # sharpened noise goes beyond on both sides
    outside = ~geometry.inscribed_circle(shape[1] if len(shape) > 2 else shape[0]).numpy()
    planes = made.numpy().reshape(-1, *outside.shape)
    assert (planes[:, outside] == -1000.0).all()
    without = FilteredBackProjection(backend=backend, circle=False).with_kernels(images, tf.zeros(count), tf.ones(count))
    assert (without.numpy().reshape(planes.shape)[:, outside] > -990).mean() > 0.5


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m9_without_the_circle_corners_come_back(backend):
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 3000, [40, 40]), 2).astype(np.float32)
    made = FilteredBackProjection(backend=backend, circle=False).with_kernels(image, 0.0, 1.0).numpy()
    difference = (made - image)[3:-3, 3:-3]  # the border is an edge, where rays are cut
    assert np.sqrt((difference**2).mean()) < 0.15 * image.std()


def test_m9_integers_are_taken():
    image = phantom(32).astype(np.int16)
    layer = FilteredBackProjection()
    np.testing.assert_array_equal(layer.with_kernels(image, 10.0, 1.0), layer.with_kernels(image.astype(np.float32), 10.0, 1.0))


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m10_slices_that_are_not_square_are_padded_with_air(backend):
    image = phantom(40)[4:37]  # 33 × 40
    layer = FilteredBackProjection(backend=backend, angles=40)
    made = layer.with_kernels(image, 20.0, 2.0).numpy()
    padded = np.pad(image, [[3, 4], [0, 0]], constant_values=-1000.0)
    np.testing.assert_array_equal(made, layer.with_kernels(padded, 20.0, 2.0).numpy()[3:36])
    assert made.shape == image.shape


def test_m10_scanner_padding_is_air():
    image = phantom(40)
    below = np.where(geometry.inscribed_circle(40).numpy(), image, -2048.0)
    deeper = np.where(geometry.inscribed_circle(40).numpy(), image, -3024.0)
    layer = FilteredBackProjection(circle=False)
    clipped = layer.with_kernels(np.maximum(below, -1000.0), 10.0, 1.0)
    for padded in (below, deeper):
        np.testing.assert_array_equal(layer.with_kernels(padded, 10.0, 1.0), clipped)


# -- M12: what is drawn -----------------------------------------------------------------------------------------------------


def test_m12_parameters_are_uniform_in_their_ranges():
    seeds = tf.range(4000, dtype=tf.int64)

    def parameters(*arguments, **options):
        return tf.function(FilteredBackProjection(*arguments, **options).parameters)(seeds)

    drawn = parameters()
    a, b, smooth = drawn.a.numpy(), drawn.b.numpy(), drawn.a.numpy() <= 0
    assert drawn.applied.numpy().mean() == pytest.approx(0.5, abs=0.03)
    assert smooth.mean() == pytest.approx(0.5, abs=0.03)
    for chosen, (a_low, a_high), (b_low, b_high) in ((smooth, (-1, 0), (0.1, 1)), (~smooth, (10, 40), (1, 4))):
        for values, low, high in ((a[chosen], a_low, a_high), (b[chosen], b_low, b_high)):
            assert low <= values.min()
            assert values.max() <= high
            shares = np.histogram(values, 4, (low, high))[0] / len(values)
            np.testing.assert_allclose(shares, 0.25, atol=0.04)
        assert abs(np.corrcoef(a[chosen], b[chosen])[0, 1]) < 0.06
    assert (parameters(mode="smooth").a.numpy() <= 0).all()
    assert (parameters(mode="sharpen").a.numpy() >= 10).all()
    own = parameters(1.0, "both", (-0.5, -0.4), (0.2, 0.3), (1.0, 2.0), (5.0, 6.0))
    assert own.applied.numpy().all()
    smooth = own.a.numpy() < 0
    for values, low, high in (
        (own.a[smooth], -0.5, -0.4),
        (own.b[smooth], 0.2, 0.3),
        (own.a[~smooth], 1.0, 2.0),
        (own.b[~smooth], 5.0, 6.0),
    ):
        assert low <= values.numpy().min() < values.numpy().max() <= high


def test_m12_a_seed_repeats_itself_in_any_batch():
    layer = FilteredBackProjection(probability=0.7)
    images = tf.constant(np.stack([phantom(24, seed) for seed in range(6)]))
    seeds = tf.constant([5, 2**40, 7, 8, 9, 10], tf.int64)
    together = layer(images, seeds).numpy()
    np.testing.assert_array_equal(together, layer(images, seeds))
    np.testing.assert_allclose(together[::-1], layer(images[::-1], seeds[::-1]), atol=1e-2)
    for index in range(6):
        np.testing.assert_allclose(together[index], layer(images[index], seeds[index]), atol=1e-2)
    changed = (together != images.numpy()).any((1, 2))
    np.testing.assert_array_equal(changed, layer.parameters(seeds).applied)
    assert 0 < changed.sum() < 6


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m12_works_inside_tf_data_with_parallel_calls(backend):
    layer = FilteredBackProjection(probability=1.0, backend=backend, angles_per_pixel=0.5)
    sizes = [24, 31, 24, 32]
    images = [phantom(size, seed) for seed, size in enumerate(sizes)]
    spec = (tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([], tf.int64))
    source = tf.data.Dataset.from_generator(lambda: zip(images, range(4)), output_signature=spec)
    for _ in range(2):
        made = [value.numpy() for value in source.map(layer, num_parallel_calls=4, deterministic=True)]
        for image, seed, value in zip(images, range(4), made):
            np.testing.assert_allclose(value, layer(image, tf.constant(seed, tf.int64)), atol=2e-2)
            assert np.abs(value - image).max() > 10


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m12_works_inside_a_saved_model(backend, tmp_path):
    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.layer = FilteredBackProjection(probability=1.0, backend=backend)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32), tf.TensorSpec([None], tf.int64)])
        def __call__(self, image, seed):
            return self.layer(image, seed)

    images = np.stack([phantom(24, seed) for seed in range(3)])[..., None]
    seeds = tf.constant([1, 2, 3], tf.int64)
    tf.saved_model.save(Served(), str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded(images, seeds), Served()(images, seeds))


def test_m12_the_layer_round_trips_and_refuses_nonsense():
    layer = FilteredBackProjection(
        0.3, "smooth", (-0.9, -0.1), (0.2, 0.5), angles=17, circle=False, dc_exact=False, backend="sinogram"
    )
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape(tf.TensorShape([2, 8, 8, 1])) == [2, 8, 8, 1]
    for wrong, message in (
        ({"probability": 1.5}, "probability"),
        ({"mode": "blur"}, "mode"),
        ({"backend": "fft"}, "backend"),
        ({"angles": 0}, "angles"),
        ({"smooth_a": (-2.0, 0.0)}, "smooth_a"),
        ({"sharpen_b": (0.0, 1.0)}, "sharpen_b"),
        ({"sharpen_a": (3.0, 1.0)}, "sharpen_a"),
    ):
        with pytest.raises(ValueError, match=message):
            FilteredBackProjection(**wrong)


def test_m12_half_precision_does_not_touch_hounsfield_units():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = FilteredBackProjection(probability=1.0)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    image = tf.constant(phantom(24))
    np.testing.assert_array_equal(
        layer(image, tf.constant(1, tf.int64)), FilteredBackProjection(1.0)(image, tf.constant(1, tf.int64))
    )


# -- a real slice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m6_a_real_slice_gets_smoother_and_sharper(backend):
    record = read_dicom(Path(pydicom.data.get_testdata_file("CT_small.dcm")))
    image = record["image"][..., 0].astype(np.float32)
    inside = geometry.inscribed_circle(128).numpy()
    layer = FilteredBackProjection(backend=backend)
    same, smooth, sharp = (layer.with_kernels(image, a, b).numpy() for a, b in ((0.0, 1.0), (-1.0, 0.7), (30.0, 3.0)))
    tissue = ndimage.binary_erosion(inside & (image > -500), iterations=12)  # away from edges, which sharpening overshoots at
    assert tissue.sum() > 1000
    assert np.corrcoef(same[tissue], image[tissue])[0, 1] > 0.97
    noise = [(one - ndimage.gaussian_filter(one, 2))[tissue].std() for one in (smooth, same, sharp)]
    assert noise[0] < 0.75 * noise[1]
    assert noise[2] > 3 * noise[1]


# -- memory and blocks ------------------------------------------------------------------------------------------------------


def test_batches_beyond_a_block_and_angles_beyond_a_chunk_give_the_same(monkeypatch):
    images = tf.constant(noise_in_circle(24, 5))
    a, b = tf.constant([0.0, 5.0, -1.0, 20.0, 1.0]), tf.constant([1.0, 2.0, 0.5, 3.0, 1.0])
    whole = kernels.reconstruct(images, a, b, 14).numpy()
    monkeypatch.setattr(geometry, "_BLOCK", 4 * 24 * 24 * 2)
    monkeypatch.setattr(geometry, "_CHUNK", 29 * 29 * 4 * 2 * 2)
    np.testing.assert_allclose(kernels.reconstruct(images, a, b, 14).numpy(), whole, atol=1e-12)
