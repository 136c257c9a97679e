"""Classify, Regress and MultiInference on TF1 and TF2 models, and what they refuse."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.client import Client
from tests.serving.conftest import local_server
from tests.serving.models import example, save_tf1, save_tf2

X = (1.0, 2.0, 30.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("half")
    save_tf1(root / "tf1" / "123")
    save_tf2(root / "tf2" / "1")
    return root


@pytest.fixture(scope="module", params=["one by one", "batched"])
def server(request, folders, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "models.config"
    entries = "".join(
        f'config {{ name: "{n}" base_path: "{folders}/{n}" model_platform: "tensorflow" }}' for n in ("tf1", "tf2")
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    batching = ["--enable_batching"] if request.param == "batched" else []
    with local_server(f"--model_config_file={config}", *batching) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _fill(request, model, signature, xs=X):
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(example(x=x) for x in xs)
    return request


def test_predict_on_a_tf1_model_with_ref_variables(server):
    with Client(server.address) as client:
        y = client.predict("tf1", {"x": np.array([[1.0], [4.0]], np.float32)})
        np.testing.assert_allclose(y["y"], [[2.5], [4.0]])
        assert y.version == 123
        assert set(client.metadata("tf1").signatures) >= {"serving_default", "regress_x_to_y", "classify_x_to_y"}


@pytest.mark.parametrize(("model", "signature"), [("tf1", "regress_x_to_y"), ("tf2", "regress")])
def test_regress(stub, model, signature):
    response = stub.Regress(_fill(regression_pb2.RegressionRequest(), model, signature), timeout=10)
    assert [one.value for one in response.result.regressions] == [2.5, 3.0, 17.0]
    assert (response.model_spec.name, response.model_spec.signature_name) == (model, signature)
    assert response.model_spec.version.value == (123 if model == "tf1" else 1)


def test_classify(stub):
    response = stub.Classify(_fill(classification_pb2.ClassificationRequest(), "tf1", "classify_x_to_y"), timeout=10)
    rows = [[(one.label, round(one.score, 4)) for one in row.classes] for row in response.result.classifications]
    assert rows == [
        [("small", 0.975), ("large", 0.025)],
        [("small", 0.97), ("large", 0.03)],
        [("small", 0.83), ("large", 0.17)],
    ]
    response = stub.Classify(_fill(classification_pb2.ClassificationRequest(), "tf2", "classify"), timeout=10)
    assert [row.classes[0].label for row in response.result.classifications] == ["large"] * 3
    response = stub.Classify(_fill(classification_pb2.ClassificationRequest(), "tf1", "scores_only"), timeout=10)
    assert [one.label for one in response.result.classifications[0].classes] == ["", ""]


def test_context_holds_for_each_example(stub):
    request = _fill(regression_pb2.RegressionRequest(), "tf1", "regress_x_to_y", ())
    request.input.example_list_with_context.context.CopyFrom(example(x=10.0))
    request.input.example_list_with_context.examples.extend([example(z=1.0), example(x=20.0)])
    response = stub.Regress(request, timeout=10)
    assert [one.value for one in response.result.regressions] == [7.0, 12.0]


def _multi(tasks):
    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    request.input.example_list.examples.extend(example(x=x) for x in X)
    return request


def test_multi_inference(stub):
    request = _multi([("tf1", "regress_x_to_y", "regress"), ("tf1", "classify_x_to_y", "classify")])
    first, second = stub.MultiInference(request, timeout=10).results
    assert [one.value for one in first.regression_result.regressions] == [2.5, 3.0, 17.0]
    assert [row.classes[1].label for row in second.classification_result.classifications] == ["large"] * 3
    assert first.model_spec.signature_name == "regress_x_to_y"
    assert second.model_spec.version.value == 123


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([], "INVALID_ARGUMENT", "Inference request must have at least one task"),
        ([("", "a", "regress")], "INVALID_ARGUMENT", "no name specified"),
        ([("tf1", "regress_x_to_y", "regress")] * 2, "INVALID_ARGUMENT", "Duplicate evaluation of signature: regress_x_to_y"),
        (
            [("tf1", "regress_x_to_y", "regress"), ("tf2", "regress", "regress")],
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name",
        ),
        ([("tf1", "nothing", "regress")], "INVALID_ARGUMENT", "Requested signature not found in model graph: nothing"),
        ([("tf1", "regress_x_to_y", "predict")], "UNIMPLEMENTED", "Unsupported signature method_name"),
        (
            [("tf1", "regress_x_to_y", "regress"), ("tf1", "other_input", "regress")],
            "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures",
        ),
    ],
)
def test_multi_inference_refusals(stub, tasks, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        stub.MultiInference(_multi(tasks), timeout=10)
    assert (caught.value.code().name, message in caught.value.details()) == (code, True), caught.value.details()


@pytest.mark.parametrize(
    ("model", "signature", "xs", "code", "message"),
    [
        ("tf1", "regress_x_to_y", (), "INVALID_ARGUMENT", "Input is empty"),
        ("none", "x", X, "NOT_FOUND", "Servable not found for request: Latest(none)"),
        ("tf1", "nothing", X, "INVALID_ARGUMENT", "No signature was found with the name: nothing"),
        ("tf1", "serving_default", X, "FAILED_PRECONDITION", "No regression inputs found in SignatureDef"),
        ("tf1", "classify_x_to_y", X, "INVALID_ARGUMENT", "Expected one output Tensor."),
        ("tf2", "mixed", X, "INVALID_ARGUMENT", "Expected one input Tensor."),
    ],
)
def test_regress_refusals(stub, model, signature, xs, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Regress(_fill(regression_pb2.RegressionRequest(), model, signature, xs), timeout=10)
    assert (caught.value.code().name, message in caught.value.details()) == (code, True), caught.value.details()


def test_examples_that_lack_a_feature_are_refused(stub):
    request = _fill(regression_pb2.RegressionRequest(), "tf1", "regress_x_to_y", ())
    request.input.example_list.examples.append(example(z=1.0))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Regress(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Feature: x" in caught.value.details()


def test_method_names_are_checked_where_asked(folders):
    flags = ("--model_name=tf2", f"--model_base_path={folders}/tf2", "--enable_signature_method_name_check")
    with local_server(*flags) as server, grpc.insecure_channel(server.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Regress(_fill(regression_pb2.RegressionRequest(), "tf2", "regress"), timeout=10)
    assert "method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict" in caught.value.details()


def test_all_kinds_of_requests_warm_a_version_up(folders, tmp_path):
    save_tf1(tmp_path / "m" / "1")
    logs = [
        prediction_log_pb2.PredictionLog(
            regress_log=prediction_log_pb2.RegressLog(request=_fill(regression_pb2.RegressionRequest(), "m", "regress_x_to_y"))
        ),
        prediction_log_pb2.PredictionLog(
            classify_log=prediction_log_pb2.ClassifyLog(
                request=_fill(classification_pb2.ClassificationRequest(), "m", "classify_x_to_y")
            )
        ),
        prediction_log_pb2.PredictionLog(
            multi_inference_log=prediction_log_pb2.MultiInferenceLog(request=_multi([("m", "regress_x_to_y", "regress")]))
        ),
    ]
    file = tmp_path / "m" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
    flags = ("--model_name=m", f"--model_base_path={tmp_path}/m")
    with local_server(*flags, "--num_request_iterations_for_warmup=2") as server:
        assert ":tensorflow:core:graph_runs{} 6\n" in server.server.metrics.page()
    with local_server(*flags, "--enable_model_warmup=false") as server:
        assert "graph_runs" not in server.server.metrics.page()
