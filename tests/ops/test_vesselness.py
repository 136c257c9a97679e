"""Gaussian filters and vessel maps, against SciPy and scikit-image."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from skimage import exposure, filters

from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.ops.gaussian import gaussian_blur, gaussian_kernel, separable_filter
from medsynth_tf.ops.vesselness import equalise, frangi, stretch, vesselness


@pytest.fixture(scope="module")
def eye():
    source = PhantomSource("fundus", 1, size=128, labels="vessels", seed=1)
    return source.read(source.keys()[0])


def test_blur_is_scipys():
    image = np.random.default_rng(0).normal(size=[2, 20, 30, 3]).astype(np.float32)
    expected = ndimage.gaussian_filter(image.astype(np.float64), (0, 1.7, 1.7, 0), mode="reflect", truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(tf.constant(image), 1.7), expected, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_derivatives_are_those_of_a_polynomial(order):
    x = np.arange(60, dtype=np.float32)
    parabola = np.broadcast_to((0.5 * x**2 - 3 * x)[None, :, None, None], [1, 60, 60, 1])
    result = separable_filter(tf.constant(parabola), gaussian_kernel(3.0, order), gaussian_kernel(3.0))[0, 20:40, 30, 0]
    expected = {0: 0.5 * x**2 - 3 * x + 0.5 * 3.0**2, 1: x - 3, 2: np.ones(60)}[order][20:40]
    np.testing.assert_allclose(result, expected, rtol=5e-3)
    with pytest.raises(ValueError, match="order"):
        gaussian_kernel(1.0, 3)


def test_frangi_finds_what_scikit_images_finds(eye):
    grey = eye["image"][..., 1].astype(np.float32) / 255
    sigmas = (1.0, 2.0, 3.0)
    # one scale at a time, since scikit-image keeps the first scale's c for all
    expected = np.max([filters.frangi(grey, sigmas=[s], beta=0.5, black_ridges=True, mode="reflect") for s in sigmas], 0)
    found = frangi(tf.constant(grey[None]), sigmas).numpy()[0]
    inner = np.s_[16:-16, 16:-16]  # it mirrors twice at the image's edge, once for each derivative
    assert np.corrcoef(found[inner].ravel(), expected[inner].ravel())[0, 1] > 0.97
    assert np.abs(found - expected)[inner].mean() < 0.01
    assert found.min() == 0
    assert found.max() < 1


def test_frangi_of_a_dark_line_and_of_a_bright_one():
    line = np.ones([1, 40, 40], np.float32)
    line[:, :, 19:21] = 0.3
    answer = frangi(tf.constant(line), (1.5,)).numpy()[0]
    assert answer[20, 19] > 0.8
    assert answer[20, 5] < 1e-3
    assert frangi(tf.constant(1 - line), (1.5,)).numpy()[0, 20, 19] < 1e-6
    # turning the image turns the answer
    turned = frangi(tf.constant(np.ascontiguousarray(line.transpose(0, 2, 1))), (1.5,)).numpy()[0]
    np.testing.assert_allclose(turned.T, answer, atol=1e-5)


def test_equalisation_without_clipping_in_one_tile_is_the_cumulative_histogram():
    grey = np.random.default_rng(0).integers(0, 200, [1, 32, 32]).astype(np.float32) / 255
    found = equalise(tf.constant(grey), clip_limit=1.0, tiles=1).numpy()[0]
    ranks = np.searchsorted(np.sort(grey.ravel()), grey[0], side="right") / grey.size
    np.testing.assert_allclose(found, ranks, atol=1e-5)


def test_equalisation_goes_with_scikit_images(eye):
    grey = eye["image"][..., 1].astype(np.float32) / 255
    expected = exposure.equalize_adapthist(grey, kernel_size=16, clip_limit=0.01)
    found = equalise(tf.constant(grey[None]), 0.01).numpy()[0]
    inside = ndimage.binary_erosion(grey > 0.1, iterations=4)
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.9
    local = [ndimage.generic_filter(picture, np.std, 9)[inside].mean() for picture in (grey, found)]
    assert local[1] > 1.5 * local[0], "contrast rises"


def test_stretch_takes_each_image_by_itself():
    values = np.random.default_rng(0).uniform(size=[2, 10, 10]).astype(np.float32)
    values[1] = 0.5
    found = stretch(tf.constant(values), (10.0, 90.0)).numpy()
    assert found[0].min() == 0
    assert found[0].max() == 1
    assert abs((found[0] == 1).mean() - 0.1) < 0.03
    assert (found[1] == 0).all()


def test_vessel_maps_are_where_the_vessels_are(eye):
    images = tf.constant(np.stack([eye["image"], np.zeros_like(eye["image"])]))
    maps = tf.function(vesselness)(images, (1.0, 1.5, 2.0)).numpy()
    assert maps.shape == (2, 128, 128, 1)
    assert (maps[1] == 0).all()  # a black picture has none
    vessel, retina = eye["mask"] == 1, eye["mask"] == 0
    assert maps[0, vessel, 0].mean() > 3 * maps[0, retina, 0].mean()
    assert (maps[0, eye["mask"] == 255, 0] == 0).all()
