"""The plainest fundus: what the claims of pm_dcgan and pm_ddpm stand on."""

import time

import numpy as np
import pytest
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.phantoms.optic_disc import bright_disc
from medsynth_tf.metrics.pairing import pairing


def drawn(count, **options):
    source = PhantomSource("optic_disc", count, **options)
    records = [source.read(key) for key in source.keys()]
    return source, records, np.stack([r["image"] for r in records]), np.stack([r["mask"] for r in records])


def test_records_depend_on_seed_and_index_alone():
    few, many, other = (PhantomSource("optic_disc", n, seed=s, atrophy=0.5) for n, s in ((3, 0), (30, 0), (3, 1)))
    key = few.keys()[2]
    assert many.keys()[2] == key
    for name in ("image", "mask"):
        np.testing.assert_array_equal(few.read(key)[name], many.read(key)[name])
    assert not np.array_equal(few.read(key)["image"], other.read(key)["image"])


@pytest.mark.parametrize("size", [32, 64])
def test_disc_and_view_are_the_cards(size):
    _, _, images, masks = drawn(128, size=size)
    unit = size / 64
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot((rows + 0.5) / unit - 32, (columns + 0.5) / unit - 32)
    np.testing.assert_array_equal(masks == 255, np.broadcast_to(distance > 30, masks.shape))
    assert (images[masks == 255] == 0).all()
    assert set(np.unique(masks)) == {0, 1, 255}
    area = (masks == 1).sum((1, 2)) / unit**2
    assert area.mean() == pytest.approx(np.pi * 5.5**2, rel=0.06)
    assert (area > np.pi * 4 * 4).all()
    assert (area < np.pi * 7 * 7).all()
    centres = np.array([ndimage.center_of_mass(mask == 1) for mask in masks])
    centres = (centres + 0.5) / unit - 32
    assert (np.abs(centres[:, 1]) > 7).all()
    assert (np.abs(centres[:, 1]) < 17).all()
    assert (np.abs(centres[:, 0]) < 7).all()
    assert 0.3 < (centres[:, 1] > 0).mean() < 0.7, "left and right eyes"


def test_the_disc_is_found_by_brightness_and_masks_of_others_do_not_fit():
    _, _, images, masks = drawn(128)
    found = pairing(bright_disc(images), masks == 1)
    assert found.paired > 0.93
    assert found.shuffled < 0.3
    _, _, images, masks = drawn(128, atrophy=1.0)
    assert pairing(bright_disc(images), masks == 1).paired > 0.93, "atrophy is not taken for the disc"


def test_atrophy_touches_the_disc_in_the_share_of_eyes_asked_for():
    source, records, _, masks = drawn(200, atrophy=0.4)
    diseased = np.array([(mask == 2).any() for mask in masks])
    np.testing.assert_array_equal(diseased, [record["label"] for record in records])
    np.testing.assert_array_equal(diseased, [key.label for key in source.keys()])
    assert diseased.mean() == pytest.approx(0.4, abs=0.1)
    for mask in masks[diseased]:
        assert (ndimage.binary_dilation(mask == 1) & (mask == 2)).any()
    with pytest.raises(ConfigError, match="atrophy"):
        PhantomSource("optic_disc", 1, atrophy=1.5)


def test_drawing_is_quick():
    source = PhantomSource("optic_disc", 200)
    keys = source.keys()
    start = time.process_time()
    for key in keys:
        source.read(key)
    assert time.process_time() - start < 1.0
