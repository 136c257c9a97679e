"""Segmentations of volumes, judged."""

import json

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.binary_labels import binary_labels
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.segmentation import judge_segmentation, overlays, segmentation_metrics
from medsynth_tf.evaluation.sheets import write_source
from medsynth_tf.metrics.overlap import sensitivity_specificity


def test_measures_of_known_counts():
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 255]).reshape(1, 2, 5)
    predicted = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 1]).reshape(1, 2, 5)
    found = segmentation_metrics([predicted], [truth])
    assert found["dice"] == pytest.approx(6 / 8)
    assert found["sensitivity"] == pytest.approx(3 / 4)
    assert found["specificity"] == pytest.approx(4 / 5)
    assert found["dice_sd"] is None
    two = segmentation_metrics([predicted, np.zeros((2, 2, 2))], [truth, np.zeros((2, 2, 2), np.uint8)])
    assert two["dice"] == pytest.approx((0.75 + 1) / 2)
    assert two["dice_sd"] == pytest.approx(np.std([0.75, 1.0], ddof=1))
    assert two["sensitivity"] == pytest.approx(0.75), "a volume with nothing to find has no sensitivity"
    assert two["dice_least"] == pytest.approx(0.75)


def test_rates_refuse_what_is_no_pair_of_masks():
    np.testing.assert_array_equal(sensitivity_specificity(np.array([[True, False]]), np.array([[True, True]])), [[0.5, np.nan]])
    with pytest.raises(DataError, match="one shape"):
        sensitivity_specificity(np.zeros((1, 2), bool), np.zeros((1, 3), bool))


def test_labels_of_one_structure():
    mask = np.array([0, 1, 2, 255], np.uint8)
    assert binary_labels(mask).tolist() == [0, 1, 1, 255]
    assert binary_labels(mask, [2]).tolist() == [0, 0, 1, 255]
    assert binary_labels(mask.astype(np.uint16), [2]).tolist() == [0, 0, 1, 0]


def test_overlays_are_square_in_millimetres_and_coloured_by_what_is_right():
    truth, predicted = np.zeros((2, 4, 8, 8), np.uint8)
    truth[1:3, 2:6, 2:6] = 1
    predicted[1:3, 2:6, 3:7] = 1
    pictures = overlays(np.zeros(truth.shape, np.float32), truth, predicted, np.array([3.0, 1.0, 1.0]))
    assert [picture.shape for picture in pictures] == [(8, 8, 3), (12, 8, 3), (12, 8, 3)]
    across = pictures[0].astype(int)
    assert (across[3, 4] > 0).any()
    assert across[3, 4, 1] == across[3, 4].max(), "green: found"
    assert across[3, 2, 0] > across[3, 2, 2] + 50, "yellow: missed"
    assert across[3, 6, 0] > across[3, 6, 1] + 50, "red: wrong"
    assert (across[0, 0] == 0).all()


def test_the_judge_scores_the_oracle_as_perfect_and_writes_its_report(tmp_path):
    source = PhantomSource("capsules", 5, size=16, slices=8)
    config = ms.load_config("multiplanar_unet", overrides={"evaluation.gates": ["segmentation.dice >= 0.99"]})
    truths = {source.read(key)["image"].tobytes(): source.read(key)["mask"] for key in source.keys()}

    def oracle(batch):
        assert batch["spacing"][0].numpy().tolist() == [6.0, 3.0, 3.0]
        return {"mask": tf.constant(truths[batch["volume"].numpy()[..., None].tobytes()][None])}

    log = tmp_path / "log.csv"
    log.write_text("stage,step,epoch,loss,annotated_pixels\nplanes,10,1,0.5,1234.0\nfusion,20,2,0.4,\n")
    metrics = judge_segmentation(oracle, config, source, tmp_path / "out", "test", log, None)
    assert metrics["segmentation"]["dice"] == 1.0
    assert metrics["segmentation"]["specificity"] == 1.0
    assert metrics["training"]["annotated_pixels"] == 1234
    page = (tmp_path / "out" / "index.html").read_text()
    assert "SYNTHETIC" not in page
    assert "passes" in page
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    with pytest.raises(DataError, match="no records"):
        judge_segmentation(
            oracle, config.replace({"data.split_fractions": [1.0, 0.0, 0.0]}), source, tmp_path, "test", None, None
        )


def test_volumes_are_shown_by_their_middle_slice(tmp_path):
    from PIL import Image

    path = write_source(tmp_path / "sheet.png", PhantomSource("capsules", 3, size=16), count=2)
    assert np.asarray(Image.open(path)).std() > 10
