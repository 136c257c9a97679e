import json

import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.latent_map import LatentMap, flattened_codes
from medsynth_tf.evaluation.run import evaluate_model
from medsynth_tf.evaluation.style_transfer import _pairs, prior_measures, transfer_measures
from medsynth_tf.metrics.style_descriptor import StyleSpace
from tests.methods.tiny import TINY

OVERRIDES, _ = TINY["us_style"]
SOURCE = "phantom:ultrasound?count=40&size=32"


def records(style, count=12, seed=0):
    source = PhantomSource("ultrasound", count, style=style, seed=seed)
    read = [source.read(key) for key in source.keys()]
    return tuple(np.stack([record[name] for record in read]) for name in ("image", "mask"))


def test_a_perfect_transfer_none_and_an_inverted_one_are_told_apart():
    content, masks = records(1)
    style, _ = records(2, seed=1)
    perfect, _ = records(2)  # the same anatomy, shown by the other machine
    space = StyleSpace(np.concatenate([content, style]))
    right, none, wrong = (transfer_measures(space, m, content, style, masks) for m in (perfect, content, 255 - content))
    assert right["fidelity"] < 0.4 < none["fidelity"] == 1.0
    assert right["correlation"] > 0.6
    assert none["structure_contrast"] == none["correlation"] == pytest.approx(1.0)
    assert wrong["structure_contrast"] == pytest.approx(-1.0)
    assert 0.3 < right["structure_contrast"] < 1.0  # the second machine shows tissue darker
    assert "structure_contrast" not in transfer_measures(space, perfect, content, style)
    assert transfer_measures(space, perfect, content, style, 0 * masks)["structure_contrast"] is None


def test_the_priors_spread_is_that_of_its_images():
    real, _ = records(0, 24)
    space = StyleSpace(real)

    def draw(contents, coherent):
        return real[: len(contents)] if coherent else contents

    found = prior_measures(space, draw, real[:2])
    assert found["spread_coherent"] == pytest.approx(1.0, abs=0.2)
    assert found["spread_iid"] == pytest.approx(0.0, abs=1e-12)
    assert found["ratio"] > 1e6


def test_the_latent_map_is_that_of_a_principal_component_analysis():
    rng = np.random.default_rng(0)
    codes, others = rng.normal(size=(8, 500)) * np.linspace(3, 0.1, 500), rng.normal(size=(5, 500))
    reference = PCA(2, svd_solver="full").fit(codes)
    for points in (codes, others):
        np.testing.assert_allclose(np.abs(LatentMap(codes)(points)), np.abs(reference.transform(points)), atol=1e-8)
    with pytest.raises(DataError, match="3 codes at least"):
        LatentMap(codes[:2])
    maps = {f"code_{i}": np.full([2, 1, 1, 1], i) for i in (10, 9, 1)}
    np.testing.assert_array_equal(flattened_codes(maps), [[1, 9, 10]] * 2)  # by scale


def test_pairs_are_of_unlike_labels_where_there_are_some():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    labels = np.array([0, 1, 0, 1, 0, 1])
    values = {"content": images, "style": images[::-1].copy(), "content_label": labels, "style_label": labels[::-1].copy()}
    values["style"][0], values["style_label"][0] = images[0], 0
    kept = _pairs(tf.data.Dataset.from_tensor_slices(values).batch(4), 4)
    np.testing.assert_array_equal(kept["content"].ravel(), [1, 2, 3, 4])
    alike = {**values, "style_label": labels}
    np.testing.assert_array_equal(
        _pairs(tf.data.Dataset.from_tensor_slices(alike).batch(4), 9)["content"].ravel(), [1, 2, 3, 4, 5]
    )
    with pytest.raises(DataError, match="no two different images"):
        _pairs(tf.data.Dataset.from_tensor_slices({"content": images, "style": images}).batch(4), 4)


def test_a_saved_model_is_judged_by_its_signatures(tmp_path):
    config = ms.load_config("us_style", overrides={**OVERRIDES, "evaluation.gates": ["prior.ratio >= 0.0"]})
    model = ms.create("us_style", config)
    model.compile()
    model.save(tmp_path / "model")
    found = evaluate_model(tmp_path / "model", ms.open_source(SOURCE), tmp_path / "report")
    assert set(found["transfer"]) == {"fidelity", "correlation", "structure_contrast"}
    assert found["prior"]["ratio"] > 1.0
    assert found["memorisation"]["pixels"]["copies"] == 0
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["prior"]["ratio"] == found["prior"]["ratio"]
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"transfer.png", "latent_map.png", "index.html"}
