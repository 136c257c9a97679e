import time

import numpy as np
import pytest
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError, DataError, UnknownNameError
from medsynth_tf.data.phantoms import PhantomSource, open_phantom
from medsynth_tf.data.phantoms import lesions as les
from medsynth_tf.data.phantoms.fundus import FundusOptions, FundusPhantom


def test_record_has_the_documented_arrays():
    source = open_phantom("fundus", {"count": "4", "size": "96", "seed": "3"})
    assert len(source.keys()) == 4
    record = source.read(source.keys()[1])
    assert record["image"].shape == (96, 96, 3)
    assert record["image"].dtype == np.uint8
    assert record["mask"].shape == (96, 96)
    assert record["mask"].dtype == np.uint8
    assert record["label"] == source.keys()[1].label
    assert record["modality"] == "OP"
    assert record["id"] == source.keys()[1].id


def test_record_depends_on_seed_and_index_alone():
    few, many, other = (PhantomSource("fundus", n, size=64, seed=s) for n, s in ((3, 0), (50, 0), (3, 1)))
    key = few.keys()[2]
    assert many.keys()[2] == key
    many.read(many.keys()[40])
    np.testing.assert_array_equal(few.read(key)["image"], many.read(key)["image"])
    np.testing.assert_array_equal(few.read(key)["mask"], many.read(key)["mask"])
    assert np.abs(few.read(key)["image"].astype(int) - other.read(key)["image"]).mean() > 3


def test_anatomy_is_the_same_at_every_size():
    small, large = (PhantomSource("fundus", 6, size=size, seed=5) for size in (64, 256))
    keys = small.keys()
    for key in keys:
        disc_small, disc_large = (source.read(key)["mask"] == les.OD for source in (small, large))
        for axis in (0, 1):
            places = [np.nonzero(disc)[axis].mean() / len(disc) for disc in (disc_small, disc_large)]
            assert abs(places[0] - places[1]) < 0.02


def test_two_eyes_a_patient_mirrored():
    source = PhantomSource("fundus", 10, size=64)
    keys = source.keys()
    assert [key.patient_id == keys[0].patient_id for key in keys[:3]] == [True, True, False]
    columns = [np.nonzero(source.read(key)["mask"] == les.OD)[1].mean() for key in keys]
    assert all(column > 40 for column in columns[0::2])
    assert all(column < 24 for column in columns[1::2])
    assert abs(keys[0].label - keys[1].label) <= 2


def test_lesions_in_the_map_follow_the_grade():
    source = PhantomSource("fundus", 120, size=128, seed=2)
    seen = set()
    keys = source.keys()
    for key in keys:
        kinds = set(np.unique(source.read(key)["mask"]).tolist()) - {les.RETINA, les.OD, les.BACKGROUND}
        seen.add(key.label)
        if key.label == 0:
            assert not kinds
        if key.label == 1:
            assert kinds == {les.MA}
        if key.label == 2:
            assert les.HE in kinds
            assert not kinds & {les.NV, les.IRMA}
        if key.label == 3:
            assert les.NV not in kinds
        assert (les.NV in kinds) == (key.label == 4)
    assert seen == {0, 1, 2, 3, 4}


def test_severe_by_haemorrhages_alone_has_more_than_twenty_in_each_quadrant():
    disc, fovea = np.array([0.33, -0.02]), np.array([-0.02, 0.01])
    counts = []
    for seed in range(20):
        drawn = les.draw_lesions(np.random.default_rng(seed), 3, disc, fovea, 0.065)
        assert les.grade_of(drawn, fovea) == 3
        if not any(lesion.kind == les.IRMA for lesion in drawn):
            centres = np.array([lesion.outline.mean(0) for lesion in drawn if lesion.kind == les.HE]) > fovea
            counts.append([np.sum((centres == side).all(1)) for side in ([0, 0], [0, 1], [1, 0], [1, 1])])
    assert counts
    assert np.min(counts) > 20


@pytest.mark.parametrize(
    ("findings", "grade"),
    [
        (((0, 0, 0, 0), 0, 0, 0, 0), 0),
        (((0, 0, 0, 0), 3, 0, 0, 0), 1),
        (((1, 0, 0, 0), 3, 0, 0, 0), 2),
        (((0, 0, 0, 0), 3, 0, 0, 1), 2),
        (((90, 21, 21, 20), 3, 0, 0, 1), 2),
        (((21, 21, 21, 21), 0, 0, 0, 0), 3),
        (((0, 0, 0, 0), 0, 1, 0, 0), 3),
        (((0, 0, 0, 0), 0, 0, 1, 0), 4),
    ],
)
def test_icdr_grade(findings, grade):
    haemorrhages, microaneurysms, irma, new_vessels, others = findings
    assert les.icdr_grade(haemorrhages, microaneurysms, irma=irma, new_vessels=new_vessels, others=others) == grade


@pytest.mark.parametrize("grade", range(5))
def test_drawn_lesions_have_the_grade_asked_for(grade):
    fovea = np.array([0.03, 0.0])
    for seed in range(30):
        drawn = les.draw_lesions(np.random.default_rng(seed), grade, np.array([-0.31, 0.0]), fovea, 0.065)
        assert les.grade_of(drawn, fovea) == grade


def test_vessel_labels_match_the_picture():
    source = PhantomSource("fundus", 8, size=128, labels="vessels")
    keys = source.keys()
    for key in keys:
        record = source.read(key)
        mask, green = record["mask"], record["image"][..., 1].astype(float)
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
        assert (record["image"][mask == 255].mean()) < 5
        assert 0.05 < (mask == 1).sum() / (mask != 255).sum() < 0.3
        # Vessels are darker than the retina one to three pixels beside them.
        beside = ndimage.binary_dilation(mask == 1, iterations=3) & ~ndimage.binary_dilation(mask == 1) & (mask == 0)
        assert green[mask == 1].mean() < 0.92 * green[beside].mean()


def test_both_label_maps_are_of_the_same_photograph():
    lesions, vessels = (PhantomSource("fundus", 2, size=64, labels=labels) for labels in ("lesions", "vessels"))
    np.testing.assert_array_equal(lesions.read(lesions.keys()[1])["image"], vessels.read(lesions.keys()[1])["image"])


def test_streams_into_tensorflow():
    source = PhantomSource("fundus", 6, size=32)
    keys = source.split("train", (0.5, 0.5, 0.0), seed=0)
    assert len({key.patient_id for key in keys}) * 2 == len(keys)
    by_id = {key.id: key for key in keys}
    elements = list(source.stream(keys, seed=1, epochs=1).as_numpy_iterator())
    assert {element["id"].decode() for element in elements} == set(by_id)
    for element in elements:
        record = source.read(by_id[element["id"].decode()])
        np.testing.assert_array_equal(element["image"], record["image"])
        np.testing.assert_array_equal(element["mask"], record["mask"])
        assert element["label"] == record["label"]


def test_fingerprint_tells_sources_apart():
    prints = {
        PhantomSource("fundus", count, size=size, seed=seed).fingerprint()
        for count, size, seed in ((4, 64, 0), (5, 64, 0), (4, 32, 0), (4, 64, 1))
    }
    assert len(prints) == 4
    assert PhantomSource("fundus", 4, size=64).fingerprint() in prints


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("fundsu", {}, UnknownNameError, "did you mean 'fundus'"),
        ("fundus", {"sise": "64"}, ConfigError, "did you mean 'size'"),
        ("fundus", {"size": "8"}, ConfigError, "must be >= 32"),
        ("fundus", {"count": "0"}, ConfigError, "count"),
        ("fundus", {"count": "many"}, ConfigError, "count"),
        ("fundus", {"labels": "disc"}, ConfigError, "labels"),
    ],
)
def test_bad_specs_are_refused_in_one_line(name, options, error, words):
    with pytest.raises(error, match=words) as caught:
        open_phantom(name, options)
    assert "\n" not in str(caught.value)


def test_unknown_record_is_refused():
    few, many = PhantomSource("fundus", 2, size=32), PhantomSource("fundus", 5, size=32)
    with pytest.raises(DataError, match="fundus-000004"):
        few.read(many.keys()[4])


@pytest.mark.parametrize("size", [32, 500])
def test_any_size(size):
    drawn = FundusPhantom(FundusOptions(size=size)).draw(0)
    assert drawn["image"].shape == (size, size, 3)
    assert drawn["mask"].shape == (size, size)


def test_hundred_images_take_no_more_than_five_seconds_of_the_processor():
    source = PhantomSource("fundus", 100)
    keys = source.keys()
    source.read(keys[0])
    start = time.process_time()
    for key in keys:
        source.read(key)
    assert time.process_time() - start < 5.0  # 0.6 s measured


def test_structures_join_the_lesion_map_and_the_vessels():
    maps = {}
    for labels in ("structures", "lesions"):
        source = PhantomSource("fundus", 12, size=128, labels=labels)
        maps[labels] = np.stack([source.read(key)["mask"] for key in source.keys()])
    structures, lesions = maps["structures"], maps["lesions"]
    for code, lesion in ((3, les.MA), (4, les.HE), (5, les.EX), (6, les.SE)):
        np.testing.assert_array_equal(structures == code, lesions == lesion)
    assert (structures[np.isin(lesions, [les.NV, les.IRMA])] == 1).all()
    disc = lesions == les.OD
    assert np.isin(structures[disc], [1, 2]).all()
    assert 0.3 < (structures[disc] == 2).mean() < 0.9  # vessels leave it in a bundle, and cover much of it at this size
    np.testing.assert_array_equal(structures == 255, lesions == 255)


def test_myopic_eyes_have_a_pale_crescent_at_the_disc():
    source = PhantomSource("fundus", 40, size=128, labels="myopia", seed=4)
    keys = source.keys()
    myopic = [key for key in keys if key.label == 1]
    assert 0.4 < len(myopic) / len(keys) < 0.8
    brighter = []
    for key in keys:
        record = source.read(key)
        mask, green = record["mask"], record["image"][..., 1].astype(float)
        assert set(np.unique(mask)) == ({0, 1, 2, 255} if key.label else {0, 1, 255})
        if key.label:
            atrophy = mask == 2
            touches = ndimage.binary_dilation(mask == 1) & atrophy
            assert touches.any()
            _, parts = ndimage.label(atrophy, np.ones((3, 3)))
            assert parts <= 2  # a crescent, or a ring that the disc cuts in two
            ring = ndimage.binary_dilation(atrophy, iterations=8) & (mask == 0)
            brighter.append(green[atrophy].mean() - green[ring].mean())
    assert min(brighter) > 25


@pytest.mark.parametrize("labels", ["structures", "myopia"])
def test_full_size_takes_seconds(labels):
    source = PhantomSource("fundus", 2, size=1280, labels=labels)
    record = source.read(source.keys()[0])
    assert record["image"].shape == (1280, 1280, 3)
    assert record["mask"].shape == (1280, 1280)
