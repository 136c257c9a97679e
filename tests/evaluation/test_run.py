import json

import numpy as np
import pytest

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.run import evaluate_export, evaluate_model
from tests.methods.tiny import TINY

SOURCE = "phantom:fundus?count=20&size=32&labels=vessels"


def test_a_saved_model_and_its_export_are_judged_alike(tmp_path):
    overrides, _ = TINY["semantic_retina"]
    config = ms.load_config("semantic_retina", overrides=overrides)
    model = ms.create("semantic_retina", config)
    model.compile()
    model.save(tmp_path / "model")
    version = ms.export(model, tmp_path / "served")
    source = ms.open_source(SOURCE)
    saved = evaluate_model(tmp_path / "model", source, tmp_path / "a")
    exported = evaluate_export(version, source, tmp_path / "b")
    assert saved["images_synthetic"] == 4
    assert saved["label_agreement"] == exported["label_agreement"]
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["label_agreement"] == pytest.approx(
        saved["label_agreement"]
    )
    assert saved["memorisation"]["pixels"]["copies"] == 0
    assert np.isfinite(saved["fid"])
    with pytest.raises(DataError, match="'val' is empty"):
        evaluate_model(tmp_path / "model", source, tmp_path / "c", split="val")
