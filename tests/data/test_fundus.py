import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.data import fundus
from medsynth_tf.data.fundus_contrast import normalise_contrast
from medsynth_tf.data.phantoms import PhantomSource


def _dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.fixture(scope="module")
def drive(shared_data):
    data = shared_data / "drive"
    numbers = ["22", "28", "35", "40"]
    return [
        (
            Image.open(data / "images" / f"{number}_training.tif").convert("RGB"),
            Image.open(data / "1st_manual" / f"{number}_manual1.gif").convert("L"),
            Image.open(data / "mask" / f"{number}_training_mask.gif").convert("L"),
        )
        for number in numbers
    ]


@pytest.mark.parametrize(("side", "least"), [(None, 0.70), (256, 0.68), (128, 0.62)])
def test_vessels_agree_with_drives_first_observer(drive, side, least):
    scores = []
    for photograph, manual, mask in drive:
        size = (side, side) if side else photograph.size
        rgb = np.asarray(photograph.resize(size, Image.Resampling.BILINEAR))
        truth, fov = (np.asarray(image.resize(size, Image.Resampling.NEAREST)) > 127 for image in (manual, mask))
        found = fundus.segment_vessels(rgb)
        scores.append(_dice(found & fov, truth & fov))
    assert np.mean(scores) >= least


def test_field_of_view_is_drives(drive):
    for photograph, _, mask in drive:
        assert _dice(fundus.field_of_view(np.asarray(photograph)), np.asarray(mask) > 127) > 0.985


def test_field_of_view_is_the_largest_component_above_ten():
    image = np.full((64, 64, 3), 10, np.uint8)
    rows, columns = np.ogrid[:64, :64]
    disc = (rows - 32) ** 2 + (columns - 32) ** 2 <= 20**2
    image[disc, 0] = 11
    image[30:34, 30:34] = 0  # a hole
    image[:3, :3] = 200  # a smaller component
    np.testing.assert_array_equal(fundus.field_of_view(image), disc)
    assert not fundus.field_of_view(np.full((8, 8, 3), 10, np.uint8)).any()


def test_m15_contrast_of_a_constant_image_is_128():
    for value in (0, 37, 255):
        assert (normalise_contrast(np.full((60, 60, 3), value, np.uint8)) == 128).all()


def test_contrast_normalisation_is_the_formula_within_the_disc():
    image = np.random.default_rng(0).integers(90, 130, (90, 90, 3)).astype(np.uint8)
    out = normalise_contrast(image)
    # σ = H/30 = 3, written out as a sum over the Gaussian's window at one pixel.
    offsets = np.arange(-12, 13)
    kernel = np.exp(-0.5 * (offsets / 3.0) ** 2)
    kernel /= kernel.sum()
    smooth = np.einsum("i,j,ijc->c", kernel, kernel, image[45 - 12 : 45 + 13, 40 - 12 : 40 + 13].astype(float))
    expected = np.clip(4 * image[45, 40].astype(float) - 4 * smooth + 128, 0, 255)
    np.testing.assert_allclose(out[45, 40], expected, atol=0.6)
    rows, columns = np.mgrid[:90, :90]
    distance = np.hypot(rows - 44.5, columns - 44.5)
    assert (out[distance > 0.45 * 90] == 128).all()
    assert out[distance <= 0.45 * 90].std() > 10


def test_vessels_of_a_phantom_are_found_at_every_scale():
    for size in (128, 384):
        source = PhantomSource("fundus", 4, size=size, labels="vessels")
        scores = []
        keys = source.keys()
        for key in keys:
            record = source.read(key)
            scores.append(_dice(fundus.segment_vessels(record["image"]), record["mask"] == 1))
        assert np.mean(scores) > 0.65


def test_a_crop_needs_the_whole_retinas_diameter():
    source = PhantomSource("fundus", 2, size=512, labels="vessels")
    record = source.read(source.keys()[0])
    crop = np.s_[192:320, 128:384]
    image, truth = record["image"][crop], record["mask"][crop] == 1
    assert _dice(fundus.segment_vessels(image, diameter=0.96 * 512), truth) > 0.6


def test_bright_lesions_of_a_phantom_are_found_and_the_disc_is_not_one_of_them():
    source = PhantomSource("fundus", 40, size=256, seed=1)
    overlaps, clean = [], []
    keys = source.keys()
    for key in keys:
        record = source.read(key)
        found = fundus.segment_bright_lesions(record["image"])
        assert not (found & (record["mask"] == 1)).any()
        truth = (record["mask"] == 4) | (record["mask"] == 5)
        if truth.sum() > 100:
            overlaps.append((found & ndimage.binary_dilation(truth, iterations=2)).sum() / max(found.sum(), 1))
            assert (ndimage.binary_dilation(found, iterations=3) & truth).sum() > 0.3 * truth.sum()
        if not truth.any():
            clean.append(found.mean())
    assert np.mean(overlaps) > 0.8
    assert np.max(clean) < 0.002


def test_optic_disc_of_a_phantom():
    source = PhantomSource("fundus", 12, size=128)
    keys = source.keys()
    for key in keys:
        record = source.read(key)
        assert _dice(fundus.optic_disc(record["image"]), record["mask"] == 1) > 0.6


def test_flat_images_hold_nothing():
    flat = np.full((128, 128, 3), 120, np.uint8)
    black = np.zeros((128, 128, 3), np.uint8)
    for image in (flat, black):
        for find in (fundus.segment_vessels, fundus.segment_bright_lesions, fundus.optic_disc):
            assert not find(image).any()


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8), [[1]]]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(DataError, match="uint8 array"):
        fundus.segment_vessels(image)


def test_masks_of_another_size_are_refused():
    with pytest.raises(DataError, match="one size"):
        fundus.segment_vessels(np.zeros((8, 8, 3), np.uint8), np.ones((8, 9), bool))
    with pytest.raises(DataError, match="at least 1 pixel"):
        fundus.optic_disc(np.zeros((8, 8, 3), np.uint8), diameter=0)
