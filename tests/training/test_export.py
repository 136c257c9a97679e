"""Exports: what is in them, what is refused, and that a failed one leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from medsynth_tf.core.card import ModelCard
from medsynth_tf.core.errors import ExportError
from medsynth_tf.training.export import WARMUP_FILE, export, write_export
from tests.serving.tiny_method import TinyConfig, TinyMethod


@pytest.fixture(scope="module")
def model():
    return TinyMethod()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "tiny"
    return export(model, folder, data_fingerprint="abc", metrics={"dice": np.float32(0.5)})


def test_saved_model_computes_what_the_model_does(model, exported):
    rng = np.random.default_rng(1)
    labels, seed = rng.integers(0, 4, (3, 8, 8)).astype(np.uint8), np.array([5, 2**40, 7], np.int64)
    loaded = tf.saved_model.load(str(exported)).signatures["serving_default"]
    outputs = loaded(label_map=tf.constant(labels), seed=tf.constant(seed))
    np.testing.assert_array_equal(outputs["image"], model(labels, seed))
    assert outputs["image"].shape == (3, 8, 8, 3)


def test_only_what_signatures_use_is_saved(exported):
    names = {name for name, _ in tf.train.list_variables(str(exported / "variables" / "variables"))}
    assert [name for name in names if "used_variables" in name] == ["used_variables/0/.ATTRIBUTES/VARIABLE_VALUE"]
    data = exported / "variables" / "variables.data-00000-of-00001"
    assert data.stat().st_size < 4096  # the unused variable alone is a megabyte


def test_versions_count_up_and_ignore_other_names(model, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "kept").touch()
    (tmp_path / ".12-partial").mkdir()
    (tmp_path / "notes").mkdir()
    assert export(model, tmp_path, warmup=False).name == "8"
    assert export(model, tmp_path, warmup=False).name == "9"


@pytest.mark.parametrize("made", [False, True])
def test_an_export_into_a_given_folder(model, tmp_path, made):
    folder = tmp_path / "Format-Serving"
    if made:
        folder.mkdir()
    write_export(model, folder, data_fingerprint="abc")
    ModelCard.read(folder).verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["Format-Serving"]
    with pytest.raises(ExportError, match="Directory not empty"):
        write_export(model, folder)
    ModelCard.read(folder).verify(folder)


def test_warmup_file_parses_and_names_the_model(exported):
    logs = [
        prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(exported / WARMUP_FILE))
    ]
    requests = {log.predict_log.request.model_spec.signature_name: log.predict_log.request for log in logs}
    assert set(requests) == {"serving_default", "spin"}
    assert requests["spin"].model_spec.name == "tiny"
    assert tf.make_ndarray(requests["serving_default"].inputs["label_map"]).shape == (1, 8, 8)


def test_card_says_what_was_exported_and_detects_any_change(exported, tmp_path):
    card = ModelCard.read(exported)
    assert (card.method, card.data_fingerprint, card.metrics) == ("tiny", "abc", {"dice": 0.5})
    assert TinyConfig.from_dict(card.config) == TinyConfig()
    assert TinyConfig.from_yaml(exported / "config.yaml") == TinyConfig()
    assert card.signatures["serving_default"]["inputs"]["label_map"] == {"dtype": "uint8", "shape": [None, 8, 8]}
    assert card.signatures["serving_default"]["outputs"]["mean"]["dtype"] == "float32"
    assert card.versions["tensorflow"] == tf.__version__
    card.verify(exported)

    def copy(name):
        target = tmp_path / name
        tf.io.gfile.makedirs(str(target))
        for file in [*card.files, "model_card.json"]:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            (target / file).write_bytes((exported / file).read_bytes())
        return target

    altered = copy("altered")
    with (altered / "saved_model.pb").open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ExportError, match=r"saved_model\.pb was altered"):
        card.verify(altered)
    lacking = copy("lacking")
    (lacking / "variables" / "variables.index").unlink()
    with pytest.raises(ExportError, match=r"variables/variables\.index is missing"):
        card.verify(lacking)
    added = copy("added")
    (added / "extra").touch()
    with pytest.raises(ExportError, match="extra does not stand in"):
        card.verify(added)


def test_unreadable_card_is_refused(tmp_path):
    assert ModelCard.read(tmp_path) is None
    (tmp_path / "model_card.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ExportError, match="is not a model card"):
        ModelCard.read(tmp_path)


def _with_signatures(signatures):
    class Odd(TinyMethod):
        def signatures(self):
            return signatures(self)

    return Odd()


def _function(shape, output):
    return tf.function(output, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")])


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        (lambda m: {}, "no signature 'serving_default'"),
        (lambda m: {"synthesize": _function([None], lambda x: {"y": x})}, "has: synthesize"),
        (lambda m: {"serving_default": _function([], lambda x: {"y": x[None]})}, "input 'x' has no batch dimension"),
        (lambda m: {"serving_default": _function([4, 2], lambda x: {"y": x})}, "input 'x' has no batch dimension"),
        (lambda m: {"serving_default": _function([None], lambda x: {"y": tf.reduce_sum(x)})}, "output 'y' has no batch"),
        (lambda m: {"serving_default": _function([None], lambda x: x)}, "flat dict of named tensors"),
        (lambda m: {"serving_default": tf.function(lambda x: {"y": x})}, "input_signature"),
        (lambda m: {"serving_default": _function([None], lambda x: {"y": x})}, "signature takes"),
    ],
)
def test_signatures_that_cannot_be_served_are_refused(signatures, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(_with_signatures(signatures), tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_example_inputs_of_the_wrong_type_are_refused(tmp_path):
    class Odd(TinyMethod):
        def example_inputs(self):
            return {**super().example_inputs(), "spin": {"steps": np.ones(1, np.float32)}}

    with pytest.raises(ExportError, match=r"'spin'.*'steps'.*float32.*takes int32"):
        export(Odd(), tmp_path)


def test_concurrent_exports_get_a_version_each(tmp_path):
    models = [TinyMethod(TinyConfig(seed=seed)) for seed in range(4)]
    results, barrier = [], threading.Barrier(len(models))

    def work(model):
        barrier.wait()
        results.append((model.config.seed, export(model, tmp_path, warmup=False)))

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for _, path in results) == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "4"]
    for seed, path in results:  # each version holds the model that was told it is there
        assert TinyConfig.from_yaml(path / "config.yaml").seed == seed
        ModelCard.read(path).verify(path)


FILE_LIMIT_SCRIPT = """
import resource, sys
from medsynth_tf.core.errors import ExportError
from medsynth_tf.training.export import export
from tests.serving.tiny_method import TinyMethod
model = TinyMethod()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # every longer write fails, as on a full disk
try:
    export(model, sys.argv[1])
except ExportError as error:
    print(f"ExportError: {error}")
"""


def test_failed_write_says_so_and_leaves_nothing(tmp_path):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT_SCRIPT, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"ExportError: cannot export to {tmp_path}: ")
    assert len(done.stdout.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
