"""The four machines show the same anatomy, each in the texture that its numbers say."""

import time

import numpy as np
import pytest
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.phantoms import PhantomSource


def drawn(count, **options):
    source = PhantomSource("ultrasound", count, **options)
    records = [source.read(key) for key in source.keys()]
    return records, np.stack([r["image"] for r in records])[..., 0] / 255, np.stack([r["mask"] for r in records])


def lag(images, masks, axis):
    """Correlation of neighbouring pixels of speckle in plain tissue, along an axis."""
    residual = images - ndimage.gaussian_filter(images, (0, 2, 2))
    residual[ndimage.binary_dilation(masks > 0, iterations=3)] = np.nan
    a, b = np.moveaxis(residual, axis, 0)[1:], np.moveaxis(residual, axis, 0)[:-1]
    known = np.isfinite(a) & np.isfinite(b)
    return np.corrcoef(a[known], b[known])[0, 1]


def test_each_style_has_its_texture_and_all_the_same_anatomy():
    images, masks = {}, {}
    for style in (1, 2, 3, 4):
        records, images[style], masks[style] = drawn(40, style=style)
        assert {r["label"] for r in records} == {style - 1}
        assert records[0]["image"].shape == (48, 48, 1)
        vessel, tissue = images[style][masks[style] == 1].mean(), images[style][masks[style] == 0].mean()
        assert vessel < 0.5 * tissue
    for style in (2, 3, 4):
        np.testing.assert_array_equal(masks[style], masks[1])
        assert not np.array_equal(images[style], images[1])
    contrast = {s: np.std(images[s] - ndimage.gaussian_filter(images[s], (0, 2, 2))) / images[s].mean() for s in images}
    assert min(contrast[2], contrast[3], contrast[4]) > 1.8 * contrast[1], contrast
    assert abs(lag(images[2], masks[2], 1)) < 0.2  # fine
    assert lag(images[3], masks[3], 1) > 0.5  # coarse
    assert lag(images[4], masks[4], 2) > 0.5 > 0.1 > lag(images[4], masks[4], 1)  # long along rows
    fall = {s: images[s][:, -12:].mean() / images[s][:, :12].mean() for s in images}
    assert fall[4] < 0.75 < fall[2] < 0.95
    assert fall[1] == pytest.approx(1.0, abs=0.08)


def test_vessels_are_where_the_map_says_and_as_large_as_they_should_be():
    _, images, masks = drawn(60, style=1)
    for image, mask in zip(images, masks):
        inside = ndimage.binary_erosion(mask == 1, iterations=2)
        ring = ndimage.binary_dilation(mask == 1, iterations=4) & ~ndimage.binary_dilation(mask == 1, iterations=2)
        assert image[inside].max() < image[ring].min()
        _, count = ndimage.label(mask)
        assert 1 <= count <= 2
        assert np.pi * 4.5**2 < mask.sum() < 2 * np.pi * 9.5**2
    larger = drawn(60, style=1, size=96)[2]
    assert larger.mean() == pytest.approx(masks.mean(), abs=0.005)


def test_series_are_repeatable_independent_of_their_length_and_quick():
    records, few, _ = drawn(8)
    assert [r["label"] for r in records] == [0, 1, 2, 3] * 2
    start = time.process_time()
    _, many, _ = drawn(200)
    assert time.process_time() - start < 2.0
    np.testing.assert_array_equal(few, many[:8])
    assert (drawn(8, seed=1)[1] != few).any((1, 2)).all()
    np.testing.assert_array_equal(drawn(8, style=2)[1][1], few[1])
    with pytest.raises(ConfigError, match="style"):
        PhantomSource("ultrasound", 1, style=5)
