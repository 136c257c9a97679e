"""phantom:heads: one anatomy in two modalities."""

import numpy as np

from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.phantoms.heads import AIR, BONE, GREY, HOUNSFIELD, SOFT


def test_both_modalities_show_the_same_head():
    mr, ct = (PhantomSource("heads", 3, size=32, modality=name) for name in ("mr", "ct"))
    for a, b in zip(mr.keys(), ct.keys()):
        first, second = mr.read(a), ct.read(b)
        np.testing.assert_array_equal(first["mask"], second["mask"])
        np.testing.assert_array_equal(first["image"], mr.read(a)["image"])
        assert set(np.unique(first["mask"])) == set(range(6))
        assert (first["modality"], second["modality"]) == ("MR", "CT")
        np.testing.assert_allclose(first["spacing"], 220 / 32)
    assert not np.array_equal(mr.read(mr.keys()[0])["mask"], mr.read(mr.keys()[1])["mask"])


def test_bone_is_dark_in_one_and_bright_in_the_other():
    mr, ct = (PhantomSource("heads", 1, size=48, modality=name) for name in ("mr", "ct"))
    signal, units = mr.read(mr.keys()[0]), ct.read(ct.keys()[0])
    mask = signal["mask"]

    def median(record, code):
        return np.median(record["image"][..., 0][mask == code])

    assert median(signal, AIR) < median(signal, BONE) < 0.5 * median(signal, SOFT)
    assert abs(median(units, AIR) - HOUNSFIELD[AIR]) < 20
    assert abs(median(units, GREY) - HOUNSFIELD[GREY]) < 20
    assert median(units, BONE) > 500
    assert (signal["image"].dtype, units["image"].dtype) == (np.uint16, np.int16)
