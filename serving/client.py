"""A typed client of model servers (TensorFlow Serving or the embedded one): NumPy in and out, deadlines, retries."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from medsynth_tf.core.errors import ServingError
from serving.tensors import fill_proto, from_proto

DEFAULT_SIGNATURE = "serving_default"
RETRIABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
FIRST_BACKOFF_SECONDS = 0.05
LONGEST_BACKOFF_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class TLS:
    """PEM files for an encrypted channel: authorities to trust (default: the system's), and the client's own for mutual TLS."""

    authorities: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The files read.

        Raises:
            ServingError: a file cannot be read.
        """
        try:
            authorities, certificate, key = (
                Path(file).read_bytes() if file else None for file in (self.authorities, self.certificate, self.key)
            )
        except OSError as error:
            raise ServingError(f"cannot read {error.filename}: {error.strerror}", "INVALID_ARGUMENT") from error
        return grpc.ssl_channel_credentials(authorities, key, certificate)


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature. `shape`: None for an axis of any size; None altogether for any rank."""

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a signature takes and returns, by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The version of a model that answered, and its signatures."""

    model: str
    version: int
    signatures: Mapping[str, Signature]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """A version's state (START, LOADING, AVAILABLE, UNLOADING, END) and, where it failed, the status name and message."""

    version: int
    state: str
    error_code: str
    error_message: str


class Prediction(dict[str, np.ndarray]):
    """Outputs by name, each a writable array; `version` is that of the model which computed them."""

    def __init__(self, outputs: Mapping[str, np.ndarray], version: int):
        super().__init__(outputs)
        self.version = version


class Client:
    """A connection to one server; thread-safe, to be closed (or used in a `with`).

    Calls raise ServingError, whose `code` is the gRPC status name. UNAVAILABLE and RESOURCE_EXHAUSTED are retried with
    exponential backoff and jitter until the deadline; nothing else is.
    """

    def __init__(self, address: str, token: str | None = None, tls: TLS | None = None):
        """`address`: host:port or unix:path. `token`: sent as a bearer token with each call."""
        self.address = address
        options = [
            ("grpc.max_receive_message_length", -1),  # a 256³ float32 volume is 64 MiB; the default limit is 4
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 60_000),
        ]
        self._channel = (
            grpc.secure_channel(address, tls.credentials(), options) if tls else grpc.insecure_channel(address, options)
        )
        self._call_metadata = [("authorization", f"Bearer {token}")] if token else []
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        signature: str = DEFAULT_SIGNATURE,
        *,
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float = 60.0,
    ) -> Prediction:
        """Runs a signature.

        Args:
            model: its name on the server.
            inputs: an array per input, of the signature's dtype, batch axis first.
            signature: which of the model's.
            version: this one; default: the newest. label: the version that carries it. At most one of the two.
            outputs: the outputs wanted; default: all.
            timeout: seconds for the call with its retries.

        Raises:
            ServingError: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, DEADLINE_EXCEEDED, UNAVAILABLE … of the server.
        """
        request = predict_pb2.PredictRequest(model_spec=_spec(model, version, label), output_filter=outputs or ())
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            try:
                fill_proto(request.inputs[name], np.asarray(value))
            except (TypeError, ValueError) as error:
                raise ServingError(f"input '{name}': {error}", "INVALID_ARGUMENT") from error
        response = self._call(self._prediction.Predict, request, timeout)
        arrays = {name: from_proto(proto, writable=True) for name, proto in response.outputs.items()}
        return Prediction(arrays, response.model_spec.version.value)

    def metadata(
        self, model: str, version: int | None = None, label: str | None = None, timeout: float = 10.0
    ) -> ModelMetadata:
        """The signatures of a model.

        Raises:
            ServingError: as `predict`.
        """
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_spec(model, version, label), metadata_field=["signature_def"]
        )
        response = self._call(self._prediction.GetModelMetadata, request, timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return ModelMetadata(
            model=response.model_spec.name,
            version=response.model_spec.version.value,
            signatures={
                name: Signature(
                    {key: _tensor_spec(info) for key, info in definition.inputs.items()},
                    {key: _tensor_spec(info) for key, info in definition.outputs.items()},
                )
                for name, definition in signatures.signature_def.items()
                if not name.startswith("__")  # __saved_model_init_op: TensorFlow's own
            },
        )

    def status(self, model: str, version: int | None = None, timeout: float = 10.0) -> list[VersionStatus]:
        """The versions of a model, newest first.

        Raises:
            ServingError: NOT_FOUND: the server has never seen the model.
        """
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(model, version, None))
        response = self._call(self._models.GetModelStatus, request, timeout)
        names = get_model_status_pb2.ModelVersionStatus.State.Name
        return [
            VersionStatus(one.version, names(one.state), _code_name(one.status.error_code), one.status.error_message)
            for one in sorted(response.model_version_status, key=lambda one: -one.version)
        ]

    def wait_ready(self, model: str, timeout: float = 60.0) -> int:
        """Waits until the server answers and a version of `model` is AVAILABLE; the newest such version.

        Raises:
            ServingError: DEADLINE_EXCEEDED: not within `timeout` seconds; the message says what was seen last.
        """
        deadline = time.monotonic() + timeout
        seen = "no answer"
        for pause in _backoff():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            try:
                versions = self.status(model, timeout=remaining)
            except ServingError as error:
                if error.code not in ("NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise
                seen = str(error)
            else:
                available = [one.version for one in versions if one.state == "AVAILABLE"]
                if available:
                    return available[0]
                seen = ", ".join(f"version {one.version} is {one.state}" for one in versions)
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        raise ServingError(f"model '{model}' at {self.address} was not ready within {timeout:g} s: {seen}", "DEADLINE_EXCEEDED")

    def close(self) -> None:
        """Closes the connection; calls in progress fail with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        for pause in _backoff():
            try:
                return method(request, timeout=max(0.0, deadline - time.monotonic()), metadata=self._call_metadata)
            except grpc.RpcError as error:
                if error.code() not in RETRIABLE or time.monotonic() + pause >= deadline:
                    raise ServingError(f"{self.address}: {error.details()}", error.code().name) from error
            time.sleep(pause)
        raise AssertionError("backoff never ends")


def _backoff() -> Any:
    """Pauses in seconds, growing twofold, each drawn from the upper half of its range so that clients do not move in step."""
    longest = FIRST_BACKOFF_SECONDS
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_BACKOFF_SECONDS)


def _spec(model: str, version: int | None, label: str | None) -> model_pb2.ModelSpec:
    if version is not None and label is not None:
        raise ServingError("give a version or a label, not both", "INVALID_ARGUMENT")
    spec = model_pb2.ModelSpec(name=model)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return spec


def _tensor_spec(info: Any) -> TensorSpec:
    shape = tf.TensorShape(info.tensor_shape)
    return TensorSpec(tf.as_dtype(info.dtype).name, None if shape.rank is None else tuple(shape.as_list()))


def _code_name(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)
