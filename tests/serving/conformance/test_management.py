"""Metadata, status, metrics, configuration, and the flags that change how a server listens."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from medsynth_tf.core.errors import MedSynthError, ServingError
from serving.client import Client
from tests.serving.conformance.models import SERVED
from tests.serving.models import save_tf1, save_tflite

X = np.array([[1.0]], np.float32)


@pytest.mark.parametrize("model", SERVED)
def test_status_and_metadata(client, target, model):
    newest = client.status(model)[0]
    assert (newest.version, newest.state, newest.error_code, newest.error_message) == (SERVED[model], "AVAILABLE", "OK", "")
    metadata = client.metadata(model)
    assert (metadata.model, metadata.version) == (model, SERVED[model])
    assert "serving_default" in metadata.signatures
    code, document = target.ask("GET", f"/v1/models/{model}")
    ok = {"error_code": "OK", "error_message": ""}
    assert (code, document["model_version_status"][0]) == (
        200,
        {"version": str(SERVED[model]), "state": "AVAILABLE", "status": ok},
    )
    code, document = target.ask("GET", f"/v1/models/{model}/versions/{SERVED[model]}/metadata")
    assert (code, document["model_spec"]["version"]) == (200, str(SERVED[model]))
    definitions = document["metadata"]["signature_def"]["signature_def"]
    assert set(metadata.signatures) <= set(definitions)


def test_what_is_not_there(client, target):
    for ask in (client.status, client.metadata, lambda model: client.predict(model, {"x": X})):
        with pytest.raises(ServingError) as caught:
            ask("nobody")
        assert caught.value.code == "NOT_FOUND"
    assert target.ask("GET", "/v1/models/nobody")[0] == 404
    code, document = target.ask("POST", "/v1/models/nobody:predict", {"instances": [1]})
    assert (code, document["error"].startswith("Servable not found for request")) == (404, True)


def test_prometheus_page(client, target):
    client.predict("function", {"x": np.ones(1, np.float32)})
    code, page = target.ask("GET", "/monitoring/prometheus/metrics")
    assert code == 200
    assert "# TYPE :tensorflow:serving:request_count counter" in page
    assert ':tensorflow:serving:request_count{model_name="function",status="OK"}' in page
    assert "# TYPE :tensorflow:serving:request_latency histogram" in page
    assert ":tensorflow:cc:saved_model:load_attempt_count" in page


def _config(folder, *names):
    entries = "".join(f'config {{ name: "{n}" base_path: "{folder}/{n}" model_platform: "tensorflow" }}' for n in names)
    return f"model_config_list {{ {entries} }}"


def _eventually(client, model, code, seconds=20.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            client.predict(model, {"x": X}, timeout=1.0)
            found = "OK"
        except ServingError as error:
            found = error.code
        if found == code:
            return
        assert time.monotonic() < deadline, f"{model}: {found}, not {code}"
        time.sleep(0.05)


@pytest.fixture
def two(tmp_path):
    for name in ("a", "b"):
        save_tf1(tmp_path / name / "1")
    (tmp_path / "models.config").write_text(_config(tmp_path, "a"))
    return tmp_path


def test_reload_by_request_which_names_served_folders(two, start):
    (two / "models.config").write_text(_config(two, "a", "b"))
    with start(f"--model_config_file={two}/models.config") as target, Client(target.grpc) as client:
        _eventually(client, "b", "OK")
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(name="a", base_path=f"{two}/a", model_platform="tensorflow")
        with grpc.insecure_channel(target.grpc) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            assert stub.HandleReloadConfigRequest(request, timeout=30).status.error_code == 0
            _eventually(client, "b", "NOT_FOUND")
            _eventually(client, "a", "OK")
            with pytest.raises(grpc.RpcError) as caught:
                stub.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_reload_by_polling_the_config_file(two, start):
    flags = f"--model_config_file={two}/models.config", "--model_config_file_poll_wait_seconds=1"
    with start(*flags) as target, Client(target.grpc) as client:
        _eventually(client, "a", "OK")
        (two / ".new").write_text(_config(two, "b"))
        (two / ".new").rename(two / "models.config")
        _eventually(client, "b", "OK")
        _eventually(client, "a", "NOT_FOUND")


def test_new_versions_are_found_by_polling(two, start):
    flags = "--model_name=a", f"--model_base_path={two}/a", "--file_system_poll_wait_seconds=1"
    with start(*flags) as target, Client(target.grpc) as client:
        _eventually(client, "a", "OK")
        save_tf1(two / ".2", half=1.0)
        (two / ".2").rename(two / "a" / "2")
        deadline = time.monotonic() + 20
        while client.predict("a", {"x": X}).version != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.predict("a", {"x": X})["y"] == [[3.0]]


@pytest.mark.parametrize("text", ["model_config_list {", "improper", "model_config_list { config { nam: 'x' } }"])
def test_a_bad_config_file_stops_the_start(tmp_path, start, text):
    (tmp_path / "models.config").write_text(text)
    with (
        pytest.raises(MedSynthError),
        start(f"--model_config_file={tmp_path}/models.config") as target,
        Client(target.grpc) as client,
    ):
        client.wait_ready("m", timeout=3)


def test_unix_socket_and_grpc_arguments(two, start):
    flags = (
        "--model_name=a",
        f"--model_base_path={two}/a",
        f"--grpc_socket_path={two}/s",
        "--grpc_channel_arguments=grpc.max_concurrent_streams=100,grpc.max_connection_age_ms=200000",
    )
    with start(*flags), Client(f"unix:{two}/s") as client:
        _eventually(client, "a", "OK")


def test_tflite_where_asked_for(tmp_path, start):
    save_tflite(tmp_path / "m" / "1")
    with (
        start("--model_name=m", f"--model_base_path={tmp_path}/m", "--prefer_tflite_model=true") as target,
        Client(target.grpc) as client,
    ):
        client.wait_ready("m")
        (y,) = client.predict("m", {"x": np.array([1.0], np.float32)}).values()
        assert y.tolist() == [2.5]


def test_batching_where_asked_for(two, start):
    (two / "batching").write_text("max_batch_size { value: 4 } batch_timeout_micros { value: 1000 }")
    flags = "--model_name=a", f"--model_base_path={two}/a", "--enable_batching", f"--batching_parameters_file={two}/batching"
    with start(*flags) as target, Client(target.grpc) as client:
        _eventually(client, "a", "OK")
        with pytest.raises(ServingError, match="larger than maximum") as caught:
            client.predict("a", {"x": np.ones((5, 1), np.float32)})
        assert caught.value.code == "INVALID_ARGUMENT"
