import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.fundus import segment_vessels
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.agreement import VesselLabels, label_agreement


@pytest.fixture(scope="module")
def phantoms():
    source = PhantomSource("fundus", 12, labels="vessels")
    keys = source.keys()
    records = [source.read(key) for key in keys]
    return np.stack([r["image"] for r in records]), np.stack([r["mask"] for r in records])


def test_images_true_to_their_masks_have_ratio_one(phantoms):
    images, masks = phantoms
    agreement = label_agreement(images[:6], masks[:6], images[6:], masks[6:])
    assert agreement.ratio == pytest.approx(1.0, abs=0.1)
    assert agreement.ratio == pytest.approx(agreement.dice_synthetic / agreement.dice_real)
    assert agreement.dice_shuffled < 0.4 * agreement.dice_synthetic


def test_images_of_other_masks_fail(phantoms):
    images, masks = phantoms
    agreement = label_agreement(images[:6], masks[:6], images[6:], np.roll(masks[6:], 1, axis=0))
    assert agreement.ratio < 0.5


def test_scores_are_those_of_the_filter_by_hand(phantoms):
    images, masks = phantoms
    found = [segment_vessels(image, mask != 255) for image, mask in zip(images[:3], masks[:3])]
    dice = [2 * (f & (m == 1)).sum() / (f.sum() + (m == 1).sum()) for f, m in zip(found, masks[:3])]
    recall = [(f & (m == 1)).sum() / (m == 1).sum() for f, m in zip(found, masks[:3])]
    agreement = label_agreement(images[:3], masks[:3], images[:3], masks[:3])
    assert agreement.dice_real == pytest.approx(np.mean(dice))
    assert agreement.recall_synthetic == pytest.approx(np.mean(recall))


def test_other_label_values(phantoms):
    images, masks = phantoms
    recoded = np.array([0, 200, 0], np.uint8)[np.minimum(masks, 2)]
    recoded[masks == 255] = 9
    agreement = label_agreement(images, recoded, images[:1], recoded[:1], VesselLabels(vessel=200, outside=9))
    expected = label_agreement(images, masks, images[:1], masks[:1])
    assert agreement == expected
    assert agreement.dice_shuffled is None


def test_real_images_without_visible_vessels_leave_the_ratio_undefined(phantoms):
    images, masks = phantoms
    assert label_agreement(np.full_like(images, 90), masks, images, masks).ratio is None


def test_masks_that_do_not_fit_are_refused(phantoms):
    images, masks = phantoms
    with pytest.raises(DataError, match="one mask"):
        label_agreement(images, masks[:, :64], images, masks)
    with pytest.raises(DataError, match="no synthetic mask has a vessel"):
        label_agreement(images, masks, images, np.zeros_like(masks))
