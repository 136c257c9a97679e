"""The embedded server over a real connection: right answers, and the right refusals."""

from __future__ import annotations

import numpy as np


def test_predict_equals_the_model_in_process(client, tiny_model):
    rng = np.random.default_rng(0)
    labels, seed = rng.integers(0, 4, (5, 8, 8)).astype(np.uint8), rng.integers(0, 2**62, 5)
    outputs = client.predict("tiny", {"label_map": labels, "seed": seed})
    np.testing.assert_array_equal(outputs["image"], tiny_model(labels, seed))
    assert outputs["image"].dtype == np.uint8
    assert set(outputs) == {"image", "mean"}
    assert outputs.version == 1
