"""Every malformed request gets its code, nothing of the server's insides, and leaves the server as it was."""

from __future__ import annotations

import grpc
import numpy as np

from tests.serving.conformance import faults

LEAKS = ("Traceback", 'File "', ".py", "site-packages")


def test_each_malformed_grpc_request_gets_its_code(channel, stub):
    generated = faults.generate()
    assert len(generated) >= 500
    wrong = []
    for fault in generated:
        call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{fault.method}")  # bytes in, bytes out
        try:
            call(fault.content, timeout=20)
            found, details = "OK", ""
        except grpc.RpcError as error:
            found, details = error.code().name, error.details()
        if found != fault.code or any(leak in details for leak in LEAKS):
            wrong.append(f"{fault.what}: {found}, not {fault.code}: {details[:200]}")
    assert not wrong, "\n".join(wrong)
    assert stub.Predict(faults.good(), timeout=20).outputs["count"].dtype


def test_each_malformed_rest_request_is_a_bad_request(target, client):
    wrong = []
    for body in faults.rest_bodies():
        code, document = target.ask("POST", f"/v1/models/{faults.MODEL}:predict", body)
        if code != 400 or set(document) != {"error"} or any(leak in document["error"] for leak in LEAKS):
            wrong.append(f"{body[:150]!r}: {code} {str(document)[:150]}")
    assert not wrong, "\n".join(wrong)
    assert target.ask("POST", f"/v1/models/{faults.MODEL}:predict", {"instances": [1.0]}) == (200, {"predictions": [2.5]})


def test_not_a_number_is_a_number(client):
    """NaN and the infinities are float32 values: whether a model takes them is the model's affair."""
    y = client.predict(faults.MODEL, {"x": np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)})["y"]
    np.testing.assert_array_equal(y, np.array([np.nan, np.inf, -np.inf, 2.5], np.float32))
