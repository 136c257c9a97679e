"""The embedded server over a real connection: right answers, and the right refusals."""

from __future__ import annotations

import signal
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from medsynth_tf.core.errors import ServingError
from medsynth_tf.training.export import export
from serving.client import Client, TensorSpec
from tests.serving.conftest import local_server, running_server
from tests.serving.tiny_method import TinyConfig, TinyMethod

LABELS = np.zeros((2, 8, 8), np.uint8)
SEEDS = np.array([1, 2], np.int64)


def test_predict_equals_the_model_in_process(client, tiny_model):
    rng = np.random.default_rng(0)
    labels, seed = rng.integers(0, 4, (5, 8, 8)).astype(np.uint8), rng.integers(0, 2**62, 5)
    outputs = client.predict("tiny", {"label_map": labels, "seed": seed})
    np.testing.assert_array_equal(outputs["image"], tiny_model(labels, seed))
    assert outputs["image"].dtype == np.uint8
    assert set(outputs) == {"image", "mean"}
    assert outputs.version == 1
    outputs["image"][:] = 0  # the caller's own


def test_output_filter_signature_and_version(client):
    assert set(client.predict("tiny", {"label_map": LABELS, "seed": SEEDS}, outputs=["mean"])) == {"mean"}
    assert client.predict("tiny", {"steps": np.array([3], np.int32)}, "spin", version=1)["steps_done"] == [3]


def test_metadata(client):
    metadata = client.metadata("tiny")
    assert (metadata.model, metadata.version) == ("tiny", 1)
    assert set(metadata.signatures) == {"serving_default", "spin"}
    assert metadata.signatures["serving_default"].inputs == {
        "label_map": TensorSpec("uint8", (None, 8, 8)),
        "seed": TensorSpec("int64", (None,)),
    }
    assert metadata.signatures["serving_default"].outputs["mean"] == TensorSpec("float32", (None,))


def test_status(client):
    (status,) = client.status("tiny")
    assert (status.version, status.state, status.error_code) == (1, "AVAILABLE", "OK")
    assert client.wait_ready("tiny") == 1


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ({"model": "other"}, "NOT_FOUND", "Servable not found for request: Latest(other)"),
        ({"version": 7}, "NOT_FOUND", "Servable not found for request: Specific(tiny, 7)"),
        ({"label": "stable"}, "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
        ({"model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ({"signature": "no"}, "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        (
            {"inputs": {"label_map": LABELS}},
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({label_map}) != len({label_map,seed}). "
            "Sent extra: {}. Missing but required: {seed}.",
        ),
        (
            {"inputs": {"label_map": LABELS, "seed": SEEDS, "style": SEEDS}},
            "INVALID_ARGUMENT",
            "input size does not match signature: 3!=2 len({label_map,seed,style}) != len({label_map,seed}). "
            "Sent extra: {style}. Missing but required: {}.",
        ),
        (
            {"inputs": {"label_map": LABELS, "seeds": SEEDS}},
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: seeds. Inputs expected to be in the set {label_map,seed}.",
        ),
        (
            {"inputs": {"label_map": LABELS.astype(np.float32), "seed": SEEDS}},
            "INVALID_ARGUMENT",
            "Expects arg[0] to be uint8 but float32 is provided (input 'label_map')",
        ),
        (
            {"inputs": {"label_map": LABELS, "seed": np.array(["a", "b"])}},
            "INVALID_ARGUMENT",
            "Expects arg[1] to be int64 but string is provided (input 'seed')",
        ),
        (
            {"inputs": {"label_map": LABELS[0], "seed": SEEDS}},
            "INVALID_ARGUMENT",
            "input 'label_map' has shape [8, 8], expected [?,8,8]",
        ),
        (
            {"inputs": {"label_map": LABELS[:, :4], "seed": SEEDS}},
            "INVALID_ARGUMENT",
            "input 'label_map' has shape [2, 4, 8], expected [?,8,8]",
        ),
        ({"inputs": {"label_map": LABELS + 9, "seed": SEEDS}}, "INVALID_ARGUMENT", "label_map: labels are 0 to 3"),
        (
            {"outputs": ["picture"]},
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: picture Outputs expected to be in the set {image,mean}.",
        ),
        ({"outputs": ["mean", "mean"]}, "INVALID_ARGUMENT", "duplicate output tensor alias: mean"),
    ],
)
def test_wrong_requests(client, call, code, message):
    arguments = {"model": "tiny", "inputs": {"label_map": LABELS, "seed": SEEDS}, **call}
    with pytest.raises(ServingError) as caught:
        client.predict(**arguments)
    assert caught.value.code == code
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert 'File "' not in str(caught.value)


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _raw_request():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["label_map"].CopyFrom(tf.make_tensor_proto(LABELS))
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(SEEDS))
    return request


def _truncate(request):
    request.inputs["label_map"].tensor_content = b"\0" * 7


def _declare_petabytes(request):
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(SEEDS[:1]))
    request.inputs["seed"].tensor_shape.dim[0].size = 2**50


def _negative_size(request):
    request.inputs["seed"].tensor_shape.dim[0].size = -1


def _unknown_dtype(request):
    request.inputs["seed"].dtype = 77


def _no_spec(request):
    request.ClearField("model_spec")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "tensor parsing error: label_map"),
        (_declare_petabytes, "tensor parsing error: seed"),
        (_negative_size, "tensor parsing error: seed"),
        (_unknown_dtype, "Expects arg[1] to be int64 but unknown dtype 77"),
        (_no_spec, "Missing ModelSpec"),
    ],
)
def test_malformed_protobufs(stub, damage, message):
    request = _raw_request()
    damage(request)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


def test_typed_fields_follow_tensorflows_rules(stub, client):
    """A last value repeats to fill the shape, as in TensorFlow's own parser."""
    request = _raw_request()
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(SEEDS[:1]))
    request.inputs["seed"].tensor_shape.dim[0].size = 2
    request.inputs["seed"].ClearField("tensor_content")
    request.inputs["seed"].int64_val[:] = [5]
    image = tf.make_ndarray(stub.Predict(request, timeout=10).outputs["image"])
    np.testing.assert_array_equal(image[0], image[1])
    expected = client.predict("tiny", {"label_map": LABELS, "seed": np.array([5, 5])})["image"]
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [([], "must specify at least one metadata_field"), (["graph"], "Metadata field graph is not supported")],
)
def test_metadata_fields(stub, fields, message):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "tiny"
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelMetadata(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "other"}, "Could not find any versions of model other"),
        ({"model": "tiny", "version": 3}, "version 3 of model tiny"),
    ],
)
def test_status_of_nothing(client, arguments, message):
    with pytest.raises(ServingError, match=message) as caught:
        client.status(**arguments)
    assert caught.value.code == "NOT_FOUND"


def test_deadline_stops_the_work(client):
    """A run of minutes ends with its caller's deadline, on the server as well: the next request is not held up."""
    started = time.monotonic()
    with pytest.raises(ServingError) as caught:
        client.predict("tiny", {"steps": np.array([10**8], np.int32)}, "spin", timeout=0.5)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 3


def test_a_volume_passes(tmp_path):
    """256³ float32 there and back: 64 MiB in one message each way."""

    class Echo(TinyMethod):
        def signatures(self):
            spec = tf.TensorSpec([None, None, None, None], tf.float32, name="volume")
            return {"serving_default": tf.function(lambda volume: {"volume": volume + 1.0}, input_signature=[spec])}

    export(Echo(), tmp_path, warmup=False)
    volume = np.arange(256**3, dtype=np.float32).reshape(1, 256, 256, 256)
    with local_server(f"--model_base_path={tmp_path}") as server, Client(server.address) as client:
        np.testing.assert_array_equal(client.predict("default", {"volume": volume})["volume"], volume + 1.0)


def test_health_and_reflection(server):
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tensorflow.serving.PredictionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} <= set(services)


def test_sigterm_lets_running_requests_finish(served_folder):
    with running_server("--model_name=tiny", f"--model_base_path={served_folder}") as server, Client(server.address) as client:
        started = time.monotonic()
        client.predict("tiny", {"steps": np.array([20_000], np.int32)}, "spin")
        steps = int(20_000 * 2.0 / (time.monotonic() - started))  # about two seconds of work
        results = []
        worker = threading.Thread(
            target=lambda: results.append(client.predict("tiny", {"steps": np.array([steps], np.int32)}, "spin"))
        )
        worker.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with Client(server.address) as late, pytest.raises(ServingError) as caught:
            late.predict("tiny", {"label_map": LABELS, "seed": SEEDS}, timeout=0.5)
        assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")  # refused connections are retried until the deadline
        worker.join()
        assert results[0]["steps_done"] == [steps]
        assert server.process.wait(15) == 0


def test_several_models_labels_and_socket(tmp_path):
    for number, brightness in ((1, 1.0), (2, 0.5)):
        export(TinyMethod(TinyConfig(brightness=brightness)), tmp_path / "tiny", name=f"tiny{number}")
    config = tmp_path / "models.config"
    config.write_text(
        f"""model_config_list {{
              config {{ name: "all" base_path: "{tmp_path}/tiny" model_platform: "tensorflow"
                        model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: 1 }} }}
              config {{ name: "one" base_path: "{tmp_path}/tiny" model_platform: "tensorflow"
                        model_version_policy {{ specific {{ versions: 1 }} }} }} }}"""
    )
    socket = tmp_path / "server.sock"
    with (
        local_server(f"--model_config_file={config}", f"--grpc_socket_path={socket}"),
        Client(f"unix:{socket}") as client,
    ):
        inputs = {"label_map": LABELS, "seed": SEEDS}
        assert [one.version for one in client.status("all")] == [2, 1]
        assert [one.version for one in client.status("one")] == [1]
        assert client.predict("all", inputs).version == 2
        assert client.predict("all", inputs, label="stable").version == 1
        bright, dark = (client.predict("all", inputs, version=version)["mean"] for version in (1, 2))
        np.testing.assert_allclose(dark / bright, 0.5, atol=0.02)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "--model_base_path"),
        (["--model_base_path=x", "--no_such_flag=1"], 2, "unrecognized arguments: --no_such_flag=1"),
        (["--model_config_file=missing.config"], 2, "missing.config: No such file"),
        (["--model_base_path=x", "--port=99999"], 2, "not a port"),
    ],
)
def test_wrong_flags(flags, code, message, capsys):
    from serving.server import main

    try:
        exit_code = main(flags)
    except SystemExit as exit_:
        exit_code = exit_.code
    assert exit_code == code
    assert message in capsys.readouterr().err
