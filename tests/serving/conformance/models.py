"""The models of the conformance tests: half plus two, exported in every way that people export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.serving.models import HalfPlusTwo, save_tf1, save_tf2

# name → newest version; each answers x → 0.5 x + 2 but version 2 of "two_versions", which answers x + 2
SERVED = {"half_plus_two_tf1": 123, "half_plus_two_tf2": 1, "two_versions": 2, "keras": 1, "strategy": 1, "function": 1}


def write(folder: Path) -> Path:
    """Writes the models and their configuration files into `folder`, which is returned."""
    save_tf1(folder / "half_plus_two_tf1" / "123")
    save_tf2(folder / "half_plus_two_tf2" / "1")
    save_tf2(folder / "two_versions" / "1")
    save_tf2(folder / "two_versions" / "2", half=1.0)
    _save_keras(folder / "keras" / "1", tf.distribute.get_strategy())
    _save_keras(folder / "strategy" / "1", tf.distribute.MirroredStrategy(["CPU:0"]))
    module = HalfPlusTwo()
    tf.saved_model.save(module, str(folder / "function" / "1"), signatures=module.predict.get_concrete_function())
    entries = "".join(_entry(folder, name) for name in SERVED)
    (folder / "models.config").write_text(f"model_config_list {{\n{entries}}}\n")
    (folder / "monitoring.config").write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n')
    return folder


def _entry(folder: Path, name: str) -> str:
    more = ""
    if name == "two_versions":
        more = 'model_version_policy { all {} } version_labels { key: "stable" value: 1 }'
    return f'  config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" {more} }}\n'


def _save_keras(path: Path, strategy: tf.distribute.Strategy) -> None:
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,), name="y")])
    model.get_layer("y").set_weights([np.array([[0.5]]), np.array([2.0])])
    model.save(str(path), include_optimizer=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
