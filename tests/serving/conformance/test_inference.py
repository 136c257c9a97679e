"""Predict, Classify, Regress and MultiInference, over gRPC and REST, on models exported in every way."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.serving.conformance.models import SERVED
from tests.serving.models import example

HALF = [name for name in SERVED if name != "two_versions"]


def _x(client, model):
    """The one input of the default signature, at its rank."""
    (name,), (spec,) = zip(*client.metadata(model).signatures["serving_default"].inputs.items())
    return name, np.array([1.0, 5.0], np.float32).reshape((2,) + (1,) * (len(spec.shape) - 1))


@pytest.mark.parametrize("model", HALF)
def test_predict(client, model):
    name, x = _x(client, model)
    outputs = client.predict(model, {name: x})
    (y,) = outputs.values()
    np.testing.assert_allclose(y.ravel(), [2.5, 4.5])
    assert y.shape == x.shape
    assert outputs.version == SERVED[model]


@pytest.mark.parametrize("model", HALF)
def test_rest_predict_in_rows_and_columns(client, target, model):
    name, x = _x(client, model)
    for form, answer in (("instances", "predictions"), ("inputs", "outputs")):
        code, document = target.ask("POST", f"/v1/models/{model}:predict", {form: x.tolist()})
        assert code == 200
        assert np.ravel(document[answer]).tolist() == [2.5, 4.5]
        named = [{name: value} for value in x.tolist()] if form == "instances" else {name: x.tolist()}
        assert target.ask("POST", f"/v1/models/{model}:predict", {form: named}) == (code, document)


def test_versions_and_labels(client, target):
    x = {"x": np.array([10.0], np.float32)}
    assert client.predict("two_versions", x)["y"] == [12.0]
    assert client.predict("two_versions", x, version=1)["y"] == [7.0]
    assert client.predict("two_versions", x, label="stable").version == 1
    for path, y in (("", 12.0), ("/versions/1", 7.0), ("/labels/stable", 7.0)):
        answer = target.ask("POST", f"/v1/models/two_versions{path}:predict", {"instances": [10.0]})
        assert answer == (200, {"predictions": [y]})


def test_several_signatures_and_an_output_filter(client):
    inputs = {
        "numbers": np.ones((2, 3), np.float32),
        "text": np.array([b"a", b"\xff"], object),
        "flag": np.array([True, False]),
        "count": np.array([1, 2**62]),
    }
    outputs = client.predict("half_plus_two_tf2", inputs, "mixed", outputs=["count", "text"])
    assert outputs["count"].tolist() == [2, 2**62 + 1]
    assert outputs["text"].tolist() == [b"a", b"\xff"]
    assert set(outputs) == {"count", "text"}


@pytest.mark.parametrize(("model", "signature"), [("half_plus_two_tf1", "regress_x_to_y"), ("half_plus_two_tf2", "regress")])
def test_regress(stub, target, model, signature):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.example_list.examples.extend([example(x=1.0), example(x=5.0)])
    response = stub.Regress(request, timeout=10)
    assert [one.value for one in response.result.regressions] == [2.5, 4.5]
    assert response.model_spec.version.value == SERVED[model]
    body = {"signature_name": signature, "examples": [{"x": 1.0}, {"x": 5.0}]}
    assert target.ask("POST", f"/v1/models/{model}:regress", body) == (200, {"results": [2.5, 4.5]})


def test_classify(stub, target):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two_tf1", "classify_x_to_y"
    request.input.example_list.examples.append(example(x=30.0))
    (row,) = stub.Classify(request, timeout=10).result.classifications
    assert [(one.label, round(one.score, 5)) for one in row.classes] == [("small", 0.83), ("large", 0.17)]
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 30.0}]}
    answer = target.ask("POST", "/v1/models/half_plus_two_tf1:classify", body)
    assert answer == (200, {"results": [[["small", 0.83], ["large", 0.17]]]})


def test_multi_inference(stub):
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in (("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "half_plus_two_tf1", signature
    request.input.example_list.examples.append(example(x=30.0))
    first, second = stub.MultiInference(request, timeout=10).results
    assert first.regression_result.regressions[0].value == 17.0
    assert second.classification_result.classifications[0].classes[1].label == "large"


def test_an_exhausted_deadline(client, stub):
    from serving.messages import predict_request

    request = predict_request("half_plus_two_tf2", {"x": np.zeros(10**6, np.float32)})
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=0.0001)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
