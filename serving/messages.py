"""Requests of model servers made from NumPy arrays, and their responses as plain Python; shared by both clients."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from medsynth_tf.core.errors import ServingError
from serving.tensors import fill_proto, from_proto

DEFAULT_SIGNATURE = "serving_default"
RETRIABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
FIRST_BACKOFF_SECONDS = 0.05
LONGEST_BACKOFF_SECONDS = 5.0
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a 256³ float32 volume is 64 MiB; the default limit is 4
    ("grpc.max_send_message_length", -1),
    # Keeps a connection with a long call in it open through NATs, which forget after 350 s; oftener than every 300 s a gRPC
    # server takes for an attack, and hangs up.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


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


def predict_request(
    model: str,
    inputs: Mapping[str, np.ndarray],
    signature: str = DEFAULT_SIGNATURE,
    version: int | None = None,
    label: str | None = None,
    outputs: Sequence[str] | None = None,
) -> predict_pb2.PredictRequest:
    """Raises ServingError (INVALID_ARGUMENT): an array cannot be sent, or both a version and a label are given."""
    request = predict_pb2.PredictRequest(model_spec=model_spec(model, version, label), output_filter=outputs or ())
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        try:
            fill_proto(request.inputs[name], np.asarray(value))
        except (TypeError, ValueError) as error:
            raise ServingError(f"input '{name}': {error}", "INVALID_ARGUMENT") from error
    return request


def read_prediction(response: predict_pb2.PredictResponse) -> Prediction:
    """The outputs of a Predict response."""
    arrays = {name: from_proto(proto, writable=True) for name, proto in response.outputs.items()}
    return Prediction(arrays, response.model_spec.version.value)


def metadata_request(model: str, version: int | None, label: str | None) -> get_model_metadata_pb2.GetModelMetadataRequest:
    """Asks for the signatures."""
    return get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=model_spec(model, version, label), metadata_field=["signature_def"]
    )


def read_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> ModelMetadata:
    """The signatures in a GetModelMetadata response."""
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


def status_request(model: str, version: int | None) -> get_model_status_pb2.GetModelStatusRequest:
    """Asks where the versions are in their lives."""
    return get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(model, version, None))


def read_status(response: get_model_status_pb2.GetModelStatusResponse) -> list[VersionStatus]:
    """The versions in a GetModelStatus response, newest first."""
    names = get_model_status_pb2.ModelVersionStatus.State.Name
    return [
        VersionStatus(one.version, names(one.state), _code_name(one.status.error_code), one.status.error_message)
        for one in sorted(response.model_version_status, key=lambda one: -one.version)
    ]


class Readiness:
    """What the attempts to reach a model have seen so far."""

    def __init__(self, model: str, address: str, timeout: float):
        self._model, self._address, self._timeout = model, address, timeout
        self._seen = "no answer"

    def failed(self, error: ServingError) -> None:
        """Notes an attempt that failed; raises it again if waiting cannot help."""
        if error.code not in ("NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
            raise error
        self._seen = str(error)

    def available(self, versions: list[VersionStatus]) -> int | None:
        """The newest version that answers."""
        self._seen = ", ".join(f"version {one.version} is {one.state}" for one in versions)
        return next((one.version for one in versions if one.state == "AVAILABLE"), None)

    def error(self) -> ServingError:
        """That it took too long."""
        return ServingError(
            f"model '{self._model}' at {self._address} was not ready within {self._timeout:g} s: {self._seen}",
            "DEADLINE_EXCEEDED",
        )


def chunks(inputs: Mapping[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
    """`inputs` in pieces of `size` rows, each read (from a memory-mapped file, say) when its turn comes.

    Raises:
        ServingError: INVALID_ARGUMENT: no inputs, different numbers of rows, or a size below 1.
    """
    lengths = {name: len(array) for name, array in inputs.items()}
    if len(set(lengths.values())) != 1 or size < 1:
        raise ServingError(f"chunks of {size} rows need inputs with the same number of rows, got {lengths}", "INVALID_ARGUMENT")
    for start in range(0, next(iter(lengths.values())), size):
        yield {name: np.asarray(array[start : start + size]) for name, array in inputs.items()}


def backoff() -> Iterator[float]:
    """Pauses in seconds, growing twofold, each drawn from the upper half of its range so that clients do not move in step."""
    longest = FIRST_BACKOFF_SECONDS
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_BACKOFF_SECONDS)


def call_metadata(token: str | None) -> list[tuple[str, str]]:
    """What goes with each call."""
    return [("authorization", f"Bearer {token}")] if token else []


def model_spec(model: str, version: int | None, label: str | None) -> model_pb2.ModelSpec:
    """Raises ServingError (INVALID_ARGUMENT): both a version and a label are given."""
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
