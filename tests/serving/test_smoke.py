"""The smoke test: a good export passes; one that is broken, or is not what it says, is named in one line."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from medsynth_tf.core.card import CARD_FILE
from medsynth_tf.core.errors import ServingError
from medsynth_tf.training.export import WARMUP_FILE, write_export
from serving.smoke import _compare, smoke_test
from tests.serving.tiny_method import TinyMethod


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "Format-Serving"  # as TFX names it: no number
    write_export(TinyMethod(), folder)
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def rewrite_warmup(folder, **inputs):
    """A request of another hand; the card, which would give that away, is taken out."""
    (folder / CARD_FILE).unlink()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        writer.write(log.SerializeToString())


def test_a_good_export_passes(exported):
    smoke_test(exported)


def test_without_requests_there_is_nothing_to_try(copy):
    (copy / WARMUP_FILE).unlink()
    with pytest.raises(ServingError, match="has no warm-up requests"):
        smoke_test(copy)


def test_a_damaged_export_is_refused_in_one_line(copy):
    data = copy / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(ServingError, match="the model server did not start") as raised:
        smoke_test(copy)
    assert "\n" not in str(raised.value)


def test_a_request_that_the_model_refuses_is_an_error(copy):
    rewrite_warmup(copy, label_map=np.full((1, 8, 8), 9, np.uint8), seed=np.zeros(1, np.int64))
    with pytest.raises(ServingError, match="labels are 0 to 3"):
        smoke_test(copy)


def answer(**changed):
    return {"image": np.array([[10, 20]], np.uint8), "mean": np.array([15.0], np.float32), "steps": np.array([3]), **changed}


@pytest.mark.parametrize("served", [answer(), answer(image=np.array([[11, 19]], np.uint8)), answer(mean=np.float32([15.0001]))])
def test_answers_may_differ_by_rounding(served):
    _compare(served, answer(), "x")


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (answer(image=np.array([[12, 20]], np.uint8)), "'image' is not what"),
        (answer(mean=np.float32([15.1])), "'mean' is not what"),
        (answer(mean=np.float32([np.nan])), "'mean' is not what"),
        (answer(steps=np.array([4])), "'steps' is not what"),
        (answer(image=np.array([[10]], np.uint8)), r"served as uint8 \[1, 1\]"),
        (answer(mean=np.array([15.0])), r"served as float64 \[1\]"),
        (answer(more=np.zeros(1)), "the server returned"),
    ],
)
def test_other_differences_are_errors(served, message):
    with pytest.raises(ServingError, match=message):
        _compare(served, answer(), "x")
