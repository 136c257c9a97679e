import numpy as np
from scipy import ndimage

from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.phantoms.graded_lesions import LABELS


def records(**options):
    source = PhantomSource("graded_lesions", **options)
    return list(map(source.read, source.keys()))


def test_images_masks_and_grades():
    drawn = records(count=30, seed=2)
    assert sorted(record["label"] for record in drawn) == [0] * 10 + [1] * 10 + [2] * 10
    for record in drawn:
        assert record["image"].shape == (64, 64, 3)
        assert record["image"].dtype == record["mask"].dtype == np.uint8
        assert set(np.unique(record["mask"])) == {0, 1, 2, 3, 255}
        lesions, count = ndimage.label(record["mask"] == LABELS["lesion"])
        assert 2 <= count <= 5
        areas = ndimage.sum(lesions > 0, lesions, range(1, count + 1))
        assert (areas >= np.pi * 1.5**2).all()
        assert (areas <= np.pi * 4.0**2).all()
        disc = ndimage.binary_dilation(record["mask"] == LABELS["optic disc"], iterations=2)
        assert not (disc & (lesions > 0)).any()
        assert record["image"][record["mask"] == 255].mean() < 8


def test_the_grade_shows_in_colour_and_not_in_the_masks():
    drawn = records(count=120, seed=0)
    blue = [[] for _ in range(3)]
    numbers = [[] for _ in range(3)]
    for record in drawn:
        lesion = record["mask"] == LABELS["lesion"]
        blue[record["label"]].append(record["image"][lesion][:, 2].mean() / 255)
        numbers[record["label"]].append(lesion.sum())
    means = [np.mean(values) for values in blue]
    assert means[1] + 0.1 < means[0] < means[2] - 0.2  # 0.10, 0.30, 0.80 before the blur
    spread = np.std(np.concatenate(numbers)) / np.sqrt(40)
    assert np.ptp([np.mean(values) for values in numbers]) < 4 * spread


def test_an_image_depends_on_seed_and_index_and_its_anatomy_not_on_its_size():
    few, many, other = records(count=3, seed=1), records(count=9, seed=1), records(count=3, seed=4)
    np.testing.assert_array_equal(few[2]["image"], many[2]["image"])
    assert np.any(few[2]["mask"] != other[2]["mask"])
    large = records(count=3, seed=1, size=128)
    for small, big in zip(few, large):
        assert small["label"] == big["label"]
        assert (small["mask"] == big["mask"][::2, ::2]).mean() > 0.95
