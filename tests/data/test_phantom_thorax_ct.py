"""The chest phantom: what the claim of fbpaug stands on."""

import numpy as np
import pytest
from skimage import transform

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.phantoms.thorax_ct import sharp_kernel, soft_kernel
from medsynth_tf.data.records import validate
from medsynth_tf.ops.radon import inscribed_circle


def drawn(count, **options):
    source = PhantomSource("thorax_ct", count, **options)
    return source, [source.read(key) for key in source.keys()]


def test_records_are_valid_and_depend_on_seed_and_index_alone():
    few, many, other = (PhantomSource("thorax_ct", n, seed=s, size=32) for n, s in ((3, 0), (9, 0), (3, 1)))
    key = few.keys()[2]
    record = few.read(key)
    validate(record)
    assert record["image"].dtype == np.int16
    for name in ("image", "mask"):
        np.testing.assert_array_equal(record[name], many.read(key)[name])
    assert not np.array_equal(record["image"], other.read(key)["image"])
    np.testing.assert_allclose(record["spacing"] * 32, 384)


def test_tissues_have_the_cards_hounsfield_units():
    source, records = drawn(6, kernel="none", size=96)
    for record in records:
        image, mask = record["image"][..., 0], record["mask"]
        assert (image[:6] == -1000).all()
        assert (image == 40).mean() > 0.2
        assert image[48 + 26, 48] == 400  # the spine
        lungs = (image < -700) & (image > -950)
        assert 0.05 < lungs.mean() < 0.3
        added = np.median(image[mask > 0]) - -850  # vessels run through them
        assert 120 < added < 420
        assert 0.002 < mask.mean() < 0.15
    assert source.describe()["labels"] == {"other": 0, "ground-glass opacity": 1}


def test_pairs_share_the_anatomy_and_differ_by_the_kernel():
    source, records = drawn(12, kernel="pairs")
    keys = source.keys()
    assert [key.label for key in keys] == [0, 1] * 6
    differences = []
    for i in range(0, 12, 2):
        assert keys[i].patient_id == keys[i + 1].patient_id
        np.testing.assert_array_equal(records[i]["mask"], records[i + 1]["mask"])
        differences.append(np.sqrt(np.mean((records[i]["image"] - np.float64(records[i + 1]["image"])) ** 2)))
    assert 60 < np.mean(differences) < 140  # the card: about 100 HU
    assert len({key.patient_id for key in keys}) == 6
    soft, sharp = (PhantomSource("thorax_ct", 6, kernel=kernel) for kernel in ("soft", "sharp"))
    np.testing.assert_array_equal(soft.read(soft.keys()[2])["image"], records[4]["image"])
    np.testing.assert_array_equal(sharp.read(sharp.keys()[2])["image"], records[5]["image"])


@pytest.mark.parametrize("kernel", ["soft", "sharp"])
def test_the_reconstruction_is_that_of_scikit_image(kernel):
    # with the noise taken out by averaging over slices of one patient it is FBP of the slice as drawn
    options = {"size": 48, "slices": 40, "healthy": 1.0, "seed": 4}
    _, plain = drawn(1, kernel="none", **options)
    _, noisy = drawn(40, kernel=kernel, **options)
    inside = inscribed_circle(48).numpy()
    attenuation = np.where(inside, plain[0]["image"][..., 0] / 1000.0 + 1, 0)
    degrees = np.arange(48) * 180 / 48
    sinogram = transform.radon(attenuation, degrees, circle=True)
    length = 256
    taps = np.zeros(length)
    odd = np.arange(1, length // 2, 2)
    taps[0], taps[odd], taps[-odd] = 0.25, -1 / (np.pi * odd) ** 2, -1 / (np.pi * odd) ** 2
    response = {"soft": soft_kernel, "sharp": sharp_kernel}[kernel](2 * np.fft.rfft(taps).real)
    filtered = np.fft.irfft(np.fft.rfft(sinogram, length, axis=0) * response[:, None], length, axis=0)[:48]
    expected = 1000 * (transform.iradon(filtered, degrees, filter_name=None, circle=True) - 1)
    mean = np.mean([record["image"][..., 0] for record in noisy], axis=0)
    inside &= (mean > -1020) & (np.hypot(*(np.indices([48, 48]) - 24)) < 22)  # they have no bins beyond the circle
    assert np.corrcoef(mean[inside], expected[inside])[0, 1] > 0.999
    assert np.abs(mean - expected)[inside].mean() < 12


def test_kernels_are_outside_fbpaugs_family():
    r = np.linspace(0.01, 1, 100)
    assert (soft_kernel(r[r >= 0.9]) == 0).all()
    assert sharp_kernel(np.array([0.65])) == pytest.approx(0.65 * 1.6)
    for kernel in (soft_kernel, sharp_kernel):
        gain = kernel(r) / r
        best = min(np.abs(1 + a * r**b - gain).max() for a in np.linspace(-1, 5, 61) for b in (0.1, 0.3, 0.5, 0.7, 1, 2, 3, 4))
        assert best > 0.1


def test_healthy_slices_and_patients():
    source, records = drawn(40, size=32, healthy=0.5, slices=4)
    with_lesion = np.mean([record["mask"].any() for record in records])
    assert 0.25 < with_lesion < 0.75
    assert len({key.patient_id for key in source.keys()}) == 10
    with pytest.raises(ConfigError, match="kernel"):
        PhantomSource("thorax_ct", 2, kernel="hard")
