"""The client against servers that fail on purpose: what is retried, what is not, what is sent."""

from __future__ import annotations

import contextlib
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from medsynth_tf.core.errors import ServingError
from serving.client import TLS, Client
from serving.tensors import fill_proto, from_proto
from tests.serving.certificates import self_signed


class Scripted(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Fails with the codes it was given, one a call, then echoes."""

    def __init__(self, codes):
        self.codes, self.times, self.metadata = list(codes), [], {}

    def Predict(self, request, context):
        self.times.append(time.monotonic())
        self.metadata = dict(context.invocation_metadata())
        if self.codes:
            context.abort(self.codes.pop(0), "on purpose")
        return predict_pb2.PredictResponse(outputs=request.inputs)


@contextlib.contextmanager
def scripted(codes, credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service = Scripted(codes)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        server.stop(None)


X = {"x": np.arange(3.0)}


def test_retriable_failures_are_retried_with_growing_pauses():
    codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE]
    with scripted(codes) as (service, address), Client(address) as client:
        np.testing.assert_array_equal(client.predict("m", X)["x"], X["x"])
        pauses = np.diff(service.times)
    assert len(pauses) == 3
    for pause, longest in zip(pauses, (0.05, 0.1, 0.2)):
        assert longest / 2 <= pause < longest + 0.05


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code.name not in ("OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED")]
)
def test_other_failures_are_not(code):
    with scripted([code]) as (service, address), Client(address) as client:
        with pytest.raises(ServingError, match="on purpose") as caught:
            client.predict("m", X)
        assert caught.value.code == code.name
        assert len(service.times) == 1


def test_retries_end_with_the_deadline():
    with scripted([grpc.StatusCode.UNAVAILABLE] * 1000) as (_, address), Client(address) as client:
        started = time.monotonic()
        with pytest.raises(ServingError, match="on purpose") as caught:
            client.predict("m", X, timeout=0.4)
        assert caught.value.code == "UNAVAILABLE"
        assert time.monotonic() - started < 0.5


def test_nobody_listens():
    with Client("127.0.0.1:1") as client:
        with pytest.raises(ServingError) as caught:
            client.predict("m", X, timeout=0.3)
        assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        with pytest.raises(ServingError, match=r"model 'm' at 127\.0\.0\.1:1 was not ready within 0\.3 s"):
            client.wait_ready("m", timeout=0.3)


def test_token_is_sent():
    with scripted([]) as (service, address), Client(address, token="secret") as client:
        client.predict("m", X)
        assert service.metadata["authorization"] == "Bearer secret"


def test_mutual_tls(tmp_path):
    key, certificate = self_signed(tmp_path)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], certificate.read_bytes(), require_client_auth=True
    )
    with scripted([], credentials) as (_, address):
        with Client(address, tls=TLS(certificate, certificate, key)) as client:
            np.testing.assert_array_equal(client.predict("m", X)["x"], X["x"])
        with Client(address, tls=TLS(certificate)) as client, pytest.raises(ServingError):
            client.predict("m", X, timeout=0.5)
    with pytest.raises(ServingError, match=r"cannot read .*missing\.pem: No such file"):
        TLS(tmp_path / "missing.pem").credentials()


def test_wrong_calls():
    with Client("127.0.0.1:1") as client:
        with pytest.raises(ServingError, match="not both"):
            client.predict("m", X, version=1, label="stable")
        with pytest.raises(ServingError, match="input 'x'") as caught:
            client.predict("m", {"x": np.array([object()])})
        assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],  # not contiguous
        np.arange(6, dtype=">f4"),  # big-endian
        np.array([[True, False]]),
        np.array(3.5),
        np.zeros((0, 4), np.float32),
        np.array([b"a", b"\xff"], object),
        np.array(b"a\0", object),
        np.array([1 + 2j]),
        np.array([1.5, -2.0], tf.bfloat16.as_numpy_dtype),
        np.array([2**64 - 1], np.uint64),
        np.array([0.1], np.float16),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_round_trip_and_tensorflow_reads_them(array):
    proto = predict_pb2.PredictRequest().inputs["x"]
    fill_proto(proto, array)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    back = from_proto(proto, writable=True)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.flags.writeable
    np.testing.assert_array_equal(from_proto(tf.make_tensor_proto(array.astype(back.dtype))), array)
