"""REST over real connections: answers in every form, refusals with TensorFlow Serving's codes and messages, metrics."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import socket
import threading
import time
import urllib.parse

import numpy as np
import pytest

from medsynth_tf.core.errors import ServingError
from serving.client import Client
from tests.serving.conftest import LOCAL, local_server
from tests.serving.models import save_tf1, save_tf2

MIXED = "mixed"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("rest")
    save_tf1(root / "half_plus_two" / "123")
    save_tf2(root / "tf2" / "1")
    save_tf2(root / "tf2" / "2", half=1.0)
    (root / "monitoring.config").write_text("prometheus_config { enable: true }")
    (root / "models.config").write_text(
        f"""model_config_list {{
              config {{ name: "half_plus_two" base_path: "{root}/half_plus_two" model_platform: "tensorflow" }}
              config {{ name: "tf2" base_path: "{root}/tf2" model_platform: "tensorflow"
                        model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: 1 }} }} }}"""
    )
    flags = (
        f"--model_config_file={root}/models.config",
        f"--monitoring_config_file={root}/monitoring.config",
        "--rest_api_max_request_bytes=100000",
        "--rest_api_timeout_in_ms=3000",
        "--rest_api_enable_cors_support",
    )
    with local_server(*flags, rest=True) as running:
        yield running


@pytest.fixture
def connection(server):
    connected = http.client.HTTPConnection(urllib.parse.urlsplit(server.rest).netloc, timeout=10)
    yield connected
    connected.close()


def _ask(connection, method, path, body=None, headers=None):
    data = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
    connection.request(method, path, data, headers or {})
    response = connection.getresponse()
    assert response.headers["Content-Type"] in ("application/json", "text/plain")
    text = response.read()
    return response.status, json.loads(text) if response.headers["Content-Type"] == "application/json" else text.decode()


def _predict(connection, body, model="tf2/versions/1"):
    return _ask(connection, "POST", f"/v1/models/{model}:predict", body)


def test_rows_and_columns(connection):
    assert _predict(connection, {"instances": [1.0, 2, 30.0]}) == (200, {"predictions": [2.5, 3.0, 17.0]})
    assert _predict(connection, {"inputs": [1.0, 2, 30.0]}) == (200, {"outputs": [2.5, 3.0, 17.0]})
    assert _predict(connection, {"instances": [{"x": 1.0}, {"x": 2.0}]}) == (200, {"predictions": [2.5, 3.0]})
    assert _predict(connection, {"inputs": {"x": [1.0]}}) == (200, {"outputs": [2.5]})
    assert _predict(connection, {"instances": [[1.0]], "signature_name": "serving_default"}, "half_plus_two") == (
        200,
        {"predictions": [[2.5]]},
    )


def test_versions_and_labels(connection):
    one = {"instances": [1.0]}
    answers = [
        _predict(connection, one, model)[1] for model in ("tf2", "tf2/versions/1", "tf2/labels/stable", "tf2/versions/2")
    ]
    assert answers == [{"predictions": [y]} for y in (3.0, 2.5, 2.5, 3.0)]


def test_several_inputs_strings_and_bytes(connection):
    rows = [
        {"numbers": [1, 2.5], "text": "ä", "flag": True, "count": 2**62},
        {"numbers": [0, 0.25], "text": {"b64": base64.b64encode(b"\xff\x00").decode()}, "flag": False, "count": -1},
    ]
    code, answer = _predict(connection, {"signature_name": MIXED, "instances": rows[:1]})
    assert code == 200
    expected = {"sums": 3.5, "text": "ä", "raw_bytes": {"b64": base64.b64encode("ä".encode()).decode()}, "flag": False}
    assert answer["predictions"] == [{**expected, "count": 2**62 + 1}]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["text"] = [rows[1]["text"]] * 2
    connection.request("POST", "/v1/models/tf2:predict", json.dumps({"signature_name": MIXED, "inputs": columns}))
    raw = connection.getresponse().read()
    outputs = json.loads(raw.decode("utf-8", "surrogateescape"))["outputs"]
    assert outputs["raw_bytes"] == [rows[1]["text"]] * 2
    assert (outputs["sums"], outputs["flag"], outputs["count"]) == ([3.5, 0.25], [False, True], [2**62 + 1, 0])


def test_numbers_keep_their_shortest_text_and_the_infinities(connection):
    connection.request("POST", "/v1/models/tf2/versions/2:predict", '{"instances": [0.1, NaN, -Infinity, 1e20]}')
    text = connection.getresponse().read().decode()
    assert json.loads(text)["predictions"][0] == 2.1
    assert "2.1," in text
    assert "NaN" in text
    assert "-Infinity" in text
    assert "1e+20" in text


def test_classify_and_regress(connection):
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    assert _ask(connection, "POST", "/v1/models/half_plus_two:regress", body) == (200, {"results": [2.5, 3.0]})
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 30.0}], "context": {"z": 1}}
    assert _ask(connection, "POST", "/v1/models/half_plus_two:classify", body) == (
        200,
        {"results": [[["small", 0.83], ["large", 0.17]]]},
    )


def test_status_and_metadata(connection):
    code, answer = _ask(connection, "GET", "/v1/models/tf2")
    ok = {"error_code": "OK", "error_message": ""}
    assert code == 200
    assert answer["model_version_status"] == [{"version": v, "state": "AVAILABLE", "status": ok} for v in ("2", "1")]
    assert _ask(connection, "GET", "/v1/models/tf2/labels/stable")[1]["model_version_status"][0]["version"] == "1"
    code, answer = _ask(connection, "GET", "/v1/models/half_plus_two/versions/123/metadata")
    assert answer["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    inputs = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["x"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "message"),
    [
        ("POST", "/v1/models/none:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
        ("POST", "/v1/models/tf2/versions/9:predict", {"instances": [1]}, 404, "Specific(tf2, 9)"),
        ("POST", "/v1/models/tf2/labels/x:predict", {"instances": [1]}, 400, "Unrecognized servable version label: x"),
        ("POST", f"/v1/models/tf2/versions/{2**70}:predict", {"instances": [1]}, 400, "Failed to convert version"),
        ("POST", "/v1/models/tf2:nothing", {}, 400, "Malformed request: POST /v1/models/tf2:nothing"),
        ("GET", "/v1/models/tf2:predict", None, 400, "Malformed request: GET"),
        ("PUT", "/v1/models/tf2:predict", {}, 400, "Malformed request: PUT"),
        ("GET", "/v1/models/none", None, 404, "Could not find any versions of model none"),
        ("GET", "/else", None, 404, "Not found: /else"),
        ("POST", "/v1/models/tf2:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("POST", "/v1/models/tf2:predict", b"{", 400, "JSON Parse error"),
        ("POST", "/v1/models/tf2:predict", b"[1]", 400, "Is not object"),
        ("POST", "/v1/models/tf2:predict", b"[" * 50000, 400, "JSON Parse error"),
        ("POST", "/v1/models/tf2:predict", {"signature_name": 3, "instances": [1]}, 400, "must be a string value"),
        ("POST", "/v1/models/tf2:predict", {"signature_name": "no", "instances": [1]}, 400, 'name: "no" not found'),
        ("POST", "/v1/models/tf2:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("POST", "/v1/models/tf2:predict", {"inputs": [1], "instances": [1]}, 400, "only one of 'inputs' or 'instances'"),
        ("POST", "/v1/models/tf2:predict", {"instances": 1}, 400, "Excepting 'instances' to be an list/array"),
        ("POST", "/v1/models/tf2:predict", {"instances": []}, 400, "No values in 'instances' array"),
        ("POST", "/v1/models/tf2:predict", {"instances": ["1"]}, 400, 'JSON Value: "1" Type: String is not of expected type: float'),
        ("POST", "/v1/models/tf2:predict", {"instances": [True]}, 400, "Type: True is not of expected type: float"),
        ("POST", "/v1/models/tf2:predict", {"instances": [None]}, 400, "Type: Null is not of expected type: float"),
        ("POST", "/v1/models/tf2:predict", {"instances": [2**24]}, 400, "without loss of precision"),
        ("POST", "/v1/models/tf2:predict", {"instances": [[1], 2]}, 400, "found at incorrect level"),
        ("POST", "/v1/models/tf2:predict", {"instances": [1, [2]]}, 400, "unexpected level"),
        ("POST", "/v1/models/tf2:predict", {"instances": [[1], [2, 3]]}, 400, "unexpected size: 2 at level: 1 expected size: 1"),
        ("POST", "/v1/models/tf2:predict", {"instances": [[1]]}, 400, "input 'x' has shape [1, 1], expected [?]"),
        ("POST", "/v1/models/tf2:predict", {"instances": [{"x": 1}, 2]}, 400, "Expecting object but got list at item 1"),
        ("POST", "/v1/models/tf2:predict", {"instances": [1, {"x": 2}]}, 400, "Expecting value/list but got object at item 1"),
        ("POST", "/v1/models/tf2:predict", {"instances": [{"y": 2}]}, 400, "keys must be equal to: x"),
        ("POST", "/v1/models/tf2:predict", {"signature_name": MIXED, "instances": [1]}, 400, "is a plain list"),
        ("POST", "/v1/models/tf2:predict", {"signature_name": MIXED, "inputs": {}}, 400, "Missing named input: count in 'inputs'"),
        ("POST", "/v1/models/half_plus_two:regress", {"signature_name": "regress_x_to_y"}, 400, "key 'examples' is expected"),
        ("POST", "/v1/models/half_plus_two:regress", {"examples": []}, 400, "'examples' value is an empty array"),
        ("POST", "/v1/models/half_plus_two:regress", {"examples": [3]}, 400, "Example must be JSON object but got JSON Number"),
        ("POST", "/v1/models/half_plus_two:regress", {"examples": [{"x": [1, "a"]}]}, 400, "Unexpected element type in feature: x"),
        ("POST", "/v1/models/half_plus_two:regress", {"examples": [{"x": None}]}, 400, "unexpected JSON type: Null"),
        ("POST", "/v1/models/half_plus_two:classify", {"signature_name": "no", "examples": [{}]}, 400, "No signature was found"),
    ],
)  # fmt: skip
def test_refusals(connection, method, path, body, code, message):
    status, answer = _ask(connection, method, path, body)
    assert (status, set(answer)) == (code, {"error"})
    assert message in answer["error"]
    assert "Traceback" not in answer["error"]


def test_bodies_packed_too_large_and_chunked(connection):
    path, body = "/v1/models/tf2/versions/1:predict", json.dumps({"instances": [1.0]}).encode()
    assert _ask(connection, "POST", path, gzip.compress(body), {"Content-Encoding": "gzip"}) == (200, {"predictions": [2.5]})
    assert _ask(connection, "POST", path, b"nonsense", {"Content-Encoding": "gzip"})[0] == 400
    assert _ask(connection, "POST", path, gzip.compress(b" " * 10**6), {"Content-Encoding": "gzip"})[0] == 413
    assert _ask(connection, "POST", path, b" " * 200_000)[0] == 413
    connection.request("POST", path, iter([body]))  # of unknown length: http.client sends it in chunks
    assert connection.getresponse().status == 411
    connection.close()
    assert _ask(connection, "OPTIONS", path)[0] == 200


def test_what_is_not_http_is_refused_and_the_server_lives(server, connection):
    address = (LOCAL, server.server.rest_port)
    for garbage in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"POST /v1/models/tf2:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection(address, timeout=10) as broken:
            broken.sendall(garbage)
            assert b"400" in broken.recv(1000)
    with socket.create_connection(address, timeout=10) as hanging:  # a body that never comes
        hanging.sendall(b"POST /v1/models/tf2:predict HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        assert _predict(connection, {"instances": [1.0]})[0] == 200
        started = time.monotonic()
        hanging.recv(1000)
        assert time.monotonic() - started < 5


def test_metrics_have_the_names_operators_know(server, connection):
    _predict(connection, {"instances": [1.0]})
    _predict(connection, {"instances": ["a"]})
    with Client(server.address) as client:
        client.predict("tf2", {"x": np.ones(1, np.float32)})
        with pytest.raises(ServingError):
            client.predict('an"other', {"x": np.ones(1, np.float32)})
    code, page = _ask(connection, "GET", "/monitoring/prometheus/metrics")
    assert code == 200
    for line in (
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="tf2",status="OK"}',
        ':tensorflow:serving:request_count{model_name="unknown",status="NOT_FOUND"}',
        "# TYPE :tensorflow:serving:request_latency histogram",
        ':tensorflow:serving:request_latency_bucket{model_name="tf2",API="predict",entrypoint="REST",le="10"}',
        ':tensorflow:serving:request_latency_bucket{model_name="tf2",API="predict",entrypoint="GRPC",le="+Inf"}',
        ':tensorflow:serving:request_latency_sum{model_name="tf2",API="predict",entrypoint="REST"}',
        ':tensorflow:serving:runtime_latency_count{model_name="tf2",API="Predict",runtime="TF1"}',
        ":tensorflow:core:graph_runs{}",
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="',
    ):
        assert line in page
    families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families(page)
    assert {":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"} <= {family.name for family in families}


def test_a_draining_server_finishes_what_runs(served_folder):
    flags = ("--model_name=tiny", f"--model_base_path={served_folder}")
    with local_server(*flags, rest=True) as server:
        netloc = urllib.parse.urlsplit(server.rest).netloc
        spin = {"signature_name": "spin", "inputs": {"steps": [20_000]}}

        def run(steps, results):
            connection = http.client.HTTPConnection(netloc, timeout=30)
            results.append(_predict(connection, {**spin, "inputs": {"steps": [steps]}}, "tiny"))

        run(100, [])
        started = time.monotonic()
        run(20_000, [])
        steps, results = int(20_000 * 1.5 / (time.monotonic() - started)), []
        worker = threading.Thread(target=run, args=(steps, results))
        worker.start()
        time.sleep(0.4)
    worker.join()
    assert results == [(200, {"outputs": [steps]})]
    with pytest.raises(OSError):
        run(1, [])
