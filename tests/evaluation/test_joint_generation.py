"""Judging pairs: what the measures say of pairs whose quality is known."""

import json

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.joint_generation import pair_metrics, plausibility
from medsynth_tf.evaluation.run import evaluate_export, evaluate_model
from medsynth_tf.evaluation.segmenter import Segmenter

SMALL = {
    "image_size": 32,
    "judge": {"steps": 60, "batch_size": 8, "widths": [8, 16], "learning_rate": 0.01, "downstream": True},
}


def eyes(count, seed, atrophy=0.0):
    source = PhantomSource("optic_disc", count, seed=seed, atrophy=atrophy)
    records = [source.read(key) for key in source.keys()]
    images, masks = (np.stack([record[name] for record in records]) for name in ("image", "mask"))
    return {"image": images, "label_map": masks, "mask": np.where(masks == 255, 0, masks).astype(np.uint8)}


def test_m15_pairs_that_belong_together_are_told_from_shuffled_ones():
    config = ms.load_config("pm_dcgan", overrides=SMALL)
    train, held_out, good = eyes(64, 0), eyes(32, 1), eyes(32, 2)
    metrics = pair_metrics(config, train, held_out, good)
    assert metrics["pairing"]["real"] > 0.8
    assert metrics["pairing"]["paired"] > 0.8
    assert metrics["pairing"]["shuffled"] < 0.4
    assert metrics["pairing"]["margin"] == pytest.approx(metrics["pairing"]["paired"] - metrics["pairing"]["shuffled"])
    assert metrics["downstream"]["gain"] == metrics["downstream"]["with_synthetic"] - metrics["downstream"]["real"]
    assert metrics["downstream"]["with_synthetic"] > 0.8
    again = pair_metrics(config, train, held_out, good)
    assert again == metrics
    shuffled = {**good, "mask": np.roll(good["mask"], 5, axis=0)}
    worse = pair_metrics(config.replace({"judge.downstream": False}), train, held_out, shuffled)
    assert abs(worse["pairing"]["margin"]) < 0.2
    assert "downstream" not in worse


def test_m15_each_mask_has_its_own_pairing():
    config = ms.load_config("pm_dcgan", overrides={**SMALL, "channels": 5, "judge.downstream": False})
    train, held_out, good = eyes(64, 0, 1.0), eyes(16, 1, 1.0), eyes(16, 2, 1.0)
    swapped = {**good, "mask": np.where(good["mask"] == 2, 1, np.where(good["mask"] == 1, 2, 0)).astype(np.uint8)}
    right, wrong = (pair_metrics(config, train, held_out, pairs)["pairing"] for pairs in (good, swapped))
    for name in ("optic_disc", "atrophy"):
        assert right[name]["paired"] > wrong[name]["paired"] + 0.4
    assert right["paired"] == pytest.approx((right["optic_disc"]["paired"] + right["atrophy"]["paired"]) / 2)


def test_a_segmenter_passes_over_codes_that_are_no_class():
    pairs = eyes(8, 0)
    assert (pairs["label_map"] == 255).any()
    config = ms.load_config("pm_dcgan", overrides={"judge": {"steps": 2, "widths": [4, 8]}, "image_size": 32})
    judge = Segmenter(pairs["image"], pairs["label_map"], 2, config.judge)
    assert set(np.unique(judge(pairs["image"]))) <= {0, 1}


def test_plausibility_of_masks():
    images = np.zeros([4, 16, 16, 3], np.uint8)
    images[:, 2:14, 2:14] = 90  # the field of view
    masks = np.zeros([4, 16, 16], np.uint8)
    masks[0, 4:8, 4:8], masks[0, 8:10, 4:8] = 1, 2  # touch
    masks[1, 4:8, 4:8], masks[1, 11:13, 4:8] = 1, 2  # do not
    masks[2, 4:6, 4:6], masks[2, 9:11, 9:11] = 1, 1  # two pieces, no atrophy
    masks[3, 0:2, 4:8] = 2  # outside the view, no disc
    real = np.zeros([2, 16, 16], np.uint8)
    real[:, 4:8, 4:8], real[:, 8:12, 4:8] = 1, 2
    found = plausibility(images, masks, real, ("optic_disc", "atrophy"))
    pixels = (masks > 0).sum()
    assert found == {
        "empty": 0.5,
        "one_component": pytest.approx(2 / 3),
        "inside_view": pytest.approx((pixels - 8) / pixels),
        "area_optic_disc": pytest.approx(40 / 4 / 16),
        "area_atrophy": pytest.approx(24 / 4 / 16),
        "touching": 0.5,
    }
    nothing = plausibility(images[:1], np.zeros([1, 16, 16], np.uint8), real, ("optic_disc",))
    assert nothing == {"empty": 1.0, "one_component": None, "inside_view": None, "area_optic_disc": 0.0}


@pytest.mark.parametrize(
    ("slug", "overrides"),
    [
        ("pm_dcgan", {"generator_filters": 2, "discriminator_filters": 2, "channels": 5}),
        ("pm_dcgan", {"generator_filters": 2, "discriminator_filters": 2, "channels": 3}),
        (
            "pm_ddpm",
            {
                "network": {"widths": [4, 8], "bottleneck": 8, "attention": []},
                "schedule.steps": 6,
                "sampling": {"sampler": "ddpm", "steps": None, "few_steps": 2},
                "condition.classes": 2,
            },
        ),
    ],
)
def test_a_saved_model_and_its_export_are_judged_alike(tmp_path, slug, overrides):
    config = ms.load_config(
        slug,
        overrides={
            "image_size": 32,
            "training": {"batch_size": 4, "ema_decay": 0.5},
            "judge": {"steps": 2, "widths": [4, 8], "batch_size": 4},
            "evaluation": {"samples": 6, "gates": []},
            **overrides,
        },
    )
    source = ms.open_source("phantom:optic_disc?count=20&size=32&atrophy=0.8")
    model = ms.create(slug, config)
    model.compile()
    model.save(tmp_path / "model")
    metrics = evaluate_model(tmp_path / "model", source, tmp_path / "report")
    exported = evaluate_export(ms.export(model, tmp_path / "served"), source, tmp_path / "report of the export")
    tf.nest.map_structure(lambda a, b: a == pytest.approx(b, abs=0.02), metrics, exported)
    assert metrics["images_synthetic"] == 6
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == metrics
    page = (tmp_path / "report" / "index.html").read_text()
    assert ("Photographs and masks made together" in page) == (config.channels > 3)
    assert ("pairing" in metrics) == (config.channels > 3)
    if config.channels > 3:
        for gate in ms.load_config(slug).evaluation.gates:
            check_gates(metrics, [gate])  # names that exist
