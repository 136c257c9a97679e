"""The grid of segmenters (us_style, M13 and M14): what they are trained on, and that it tells good training sets from bad."""

import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.balanced_mix import balanced_order
from medsynth_tf.evaluation import style_grid
from medsynth_tf.evaluation.style_grid import GridConfig, Segmented, augmented, segmentation_grid, with_styles
from medsynth_tf.metrics.overlap import pooled_overlap

TINY = GridConfig(widths=(4, 8), epochs=6, batch_size=4, learning_rate=2e-2)


def discs(count, bright, seed=0):
    """Discs that are bright on dark ground, or dark on bright: a segmenter of the one is wrong about the other."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    centres = rng.uniform(5, 11, [count, 2])
    masks = np.stack([(y - a) ** 2 + (x - b) ** 2 < 16 for a, b in centres]).astype(np.uint8)
    images = np.where(masks == bright, 200, 60) + rng.normal(0, 5, masks.shape)
    return Segmented(images.astype(np.uint8)[..., None], masks)


def test_m13_the_balanced_mix_has_as_many_of_each_and_all_of_the_larger():
    order = balanced_order(10, 3, seed=1, epoch=0)
    assert order.shape == (20, 2)
    assert (order[:, 0] == 0).sum() == (order[:, 0] == 1).sum() == 10
    assert sorted(order[order[:, 0] == 0, 1]) == list(range(10))
    assert sorted(np.bincount(order[order[:, 0] == 1, 1])) == [3, 3, 4]
    np.testing.assert_array_equal(order, balanced_order(10, 3, seed=1, epoch=0))
    assert (order != balanced_order(10, 3, seed=1, epoch=1)).any()
    with pytest.raises(DataError, match="both need one"):
        balanced_order(0, 3, 0, 0)


@pytest.mark.parametrize("augment", [False, True])
def test_m13_transferred_images_keep_their_label_maps(augment):
    phantom, real = discs(6, 1), discs(2, 0, seed=1)
    data = style_grid._epoch(TINY, phantom, real, lambda images, epoch: 255 - images, augment, seed=0, epoch=3)
    dark = data.images[..., 0] < 128
    agreed = (dark == (data.masks == 1)).mean()  # all discs are dark now, where their masks are
    assert agreed == 1.0 if not augment else agreed > 0.98  # blurred edges may move
    assert len(data.images) == 12
    alone = style_grid._epoch(TINY, phantom, real, None, augment, seed=0, epoch=3)
    assert len(alone.images) == 12  # as many steps


def test_m13_styles_are_drawn_anew_for_each_image_and_epoch():
    calls = []

    def predict(contents, styles, seeds):
        calls.append((styles[:, 0, 0, 0], seeds))
        return styles

    styles = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)
    transfer = with_styles(predict, styles, seed=0, batch_size=16)
    first, second = (transfer(np.zeros([40, 1, 1, 1], np.uint8), epoch).ravel() for epoch in (0, 1))
    assert [len(c[0]) for c in calls] == [16, 16, 8] * 2
    assert len(set(first)) > 20
    assert (first != second).mean() > 0.8
    assert len(np.unique(np.concatenate([c[1] for c in calls]))) == 80
    np.testing.assert_array_equal(first, transfer(np.zeros([40, 1, 1, 1], np.uint8), 0).ravel())


def test_traditional_augmentation_changes_values_and_moves_masks_along():
    data = discs(40, 1)
    changed = augmented(data, TINY, np.random.default_rng(0))
    kept = [np.array_equal(a, b) for a, b in zip(changed.masks, data.masks)]
    assert 0.1 < np.mean(kept) < 0.5  # a quarter is not flipped at all
    np.testing.assert_array_equal(changed.masks.sum((1, 2)), data.masks.sum((1, 2)))
    inside = np.array([image[mask == 1].mean() for image, mask in zip(changed.images[..., 0], changed.masks)])
    assert inside.std() > 5  # the power
    plain = TINY.replace({"gamma": [1.0, 1.0], "blur": [0.0, 0.0]})
    same = augmented(data, plain, np.random.default_rng(0))
    assert all(np.array_equal(np.sort(a.ravel()), np.sort(b.ravel())) for a, b in zip(same.images, data.images))


def test_pooled_overlap_is_its_definition():
    predicted, truth = np.zeros([2, 2, 4], bool), np.zeros([2, 2, 4], bool)
    predicted[0, 0], truth[:, 0, :2] = True, True
    # found 4, wanted 4, hits 2
    assert pooled_overlap(predicted, truth) == {"dice": 0.5, "iou": 2 / 6, "precision": 0.5, "recall": 0.5}
    assert pooled_overlap(predicted & False, truth) == {"dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": 0.0}
    assert set(pooled_overlap(predicted & False, truth & False).values()) == {1.0}


def test_m14_the_grid_has_all_cells_each_with_its_own_training_set(monkeypatch):
    phantom, real, test = discs(12, 1), discs(4, 0, seed=1), discs(12, 0, seed=2)
    trained = []

    def remember(settings, phantom, real, transfer, augment, seed):
        trained.append((len(real.images), transfer, augment))
        return lambda images: np.zeros([*images.shape[:3], 2])

    monkeypatch.setattr(style_grid, "_trained", remember)
    transfers, seen = {"vt": lambda images, epoch: 255 - images, "raw": lambda images, epoch: images, "real alone": None}, []
    cells = segmentation_grid(TINY, phantom, real, test, transfers, counts=[1, 4], seed=0, report=seen.append)
    assert seen == cells
    keys = [(cell["source"], cell["real"], cell["augmented"]) for cell in cells]
    assert sorted(keys) == sorted((s, n, a) for s in transfers for n in (1, 4) for a in (True, False))
    assert trained == [(count, transfers[source], augment) for source, count, augment in keys]
    with pytest.raises(DataError, match="expected 1 to 4"):
        segmentation_grid(TINY, phantom, real, test, transfers, counts=[5])


def test_m14_a_perfect_transfer_gives_a_good_segmenter_again_and_again():
    phantom, real, test = discs(12, 1), discs(4, 0, seed=1), discs(12, 0, seed=2)

    def cell():
        transfers = {"vt": lambda images, epoch: 255 - images}
        return segmentation_grid(TINY, phantom, real, test, transfers, counts=[1], augmentation=[False], seed=0)[0]["class_1"]

    found, again = cell(), cell()
    assert set(found) == {"dice", "iou", "precision", "recall"}
    assert found["dice"] > 0.9
    assert found["iou"] == pytest.approx(found["dice"] / (2 - found["dice"]))
    assert again == pytest.approx(found, abs=0.02)


def test_m14_training_on_the_wrong_domain_alone_is_found_out():
    phantom, test = discs(12, 1), discs(12, 0, seed=2)
    wrong = style_grid._trained(TINY, phantom, Segmented(phantom.images[:2], phantom.masks[:2]), None, False, 0)
    assert style_grid._tested(wrong, TINY, test)["class_1"]["dice"] < 0.4
