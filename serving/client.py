"""A typed client of model servers (TensorFlow Serving or the embedded one): NumPy in and out, deadlines, retries."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from medsynth_tf.core.errors import ServingError
from serving import messages
from serving.messages import (
    DEFAULT_SIGNATURE,
    TLS,
    ModelMetadata,
    Prediction,
    Signature,
    TensorSpec,
    VersionStatus,
)

__all__ = ["TLS", "Client", "ModelMetadata", "Prediction", "Signature", "TensorSpec", "VersionStatus"]


class Client:
    """A connection to one server; thread-safe, to be closed (or used in a `with`).

    Calls raise ServingError, whose `code` is the gRPC status name. UNAVAILABLE and RESOURCE_EXHAUSTED are retried with
    exponential backoff and jitter until the deadline; nothing else is.
    """

    def __init__(self, address: str, token: str | None = None, tls: TLS | None = None):
        """`address`: host:port or unix:path. `token`: sent as a bearer token with each call."""
        self.address = address
        options = list(messages.CHANNEL_OPTIONS)
        self._channel = (
            grpc.secure_channel(address, tls.credentials(), options) if tls else grpc.insecure_channel(address, options)
        )
        self._call_metadata = messages.call_metadata(token)
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
        request = messages.predict_request(model, inputs, signature, version, label, outputs)
        return messages.read_prediction(self._call(self._prediction.Predict, request, timeout))

    def predict_chunks(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        chunk_size: int,
        signature: str = DEFAULT_SIGNATURE,
        *,
        in_flight: int = 3,
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float = 60.0,
    ) -> Iterator[Prediction]:
        """Runs a signature on a batch of any size, `chunk_size` rows a request; memory is bounded by the chunks in flight.

        Args:
            inputs: as `predict`; memory-mapped arrays are read chunk by chunk.
            in_flight: requests under way at the same time.
            timeout: seconds for each chunk with its retries. The rest as `predict`.

        Yields:
            The prediction of each chunk, in order. Without `version` each may be of another version: it says which.

        Raises:
            ServingError: as `predict`; chunks already yielded stay good.
        """
        pieces = messages.chunks(inputs, chunk_size)
        with futures.ThreadPoolExecutor(in_flight, thread_name_prefix="predict-chunks") as pool:

            def submit(piece: Mapping[str, np.ndarray]) -> futures.Future[Prediction]:
                return pool.submit(
                    self.predict, model, piece, signature, version=version, label=label, outputs=outputs, timeout=timeout
                )

            waiting = deque(map(submit, itertools.islice(pieces, in_flight)))
            try:
                while waiting:
                    done = waiting.popleft().result()
                    waiting.extend(map(submit, itertools.islice(pieces, 1)))
                    yield done
            finally:
                for future in waiting:
                    future.cancel()

    def metadata(
        self, model: str, version: int | None = None, label: str | None = None, timeout: float = 10.0
    ) -> ModelMetadata:
        """The signatures of a model.

        Raises:
            ServingError: as `predict`.
        """
        request = messages.metadata_request(model, version, label)
        return messages.read_metadata(self._call(self._prediction.GetModelMetadata, request, timeout))

    def status(self, model: str, version: int | None = None, timeout: float = 10.0) -> list[VersionStatus]:
        """The versions of a model, newest first.

        Raises:
            ServingError: NOT_FOUND: the server has never seen the model.
        """
        return messages.read_status(self._call(self._models.GetModelStatus, messages.status_request(model, version), timeout))

    def wait_ready(self, model: str, timeout: float = 60.0) -> int:
        """Waits until the server answers and a version of `model` is AVAILABLE; the newest such version.

        Raises:
            ServingError: DEADLINE_EXCEEDED: not within `timeout` seconds; the message says what was seen last.
        """
        deadline = time.monotonic() + timeout
        readiness = messages.Readiness(model, self.address, timeout)
        for pause in messages.backoff():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            try:
                version = readiness.available(self.status(model, timeout=remaining))
            except ServingError as error:
                readiness.failed(error)
            else:
                if version is not None:
                    return version
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        raise readiness.error()

    def close(self) -> None:
        """Closes the connection; calls in progress fail with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        for pause in messages.backoff():
            try:
                return method(request, timeout=max(0.0, deadline - time.monotonic()), metadata=self._call_metadata)
            except grpc.RpcError as error:
                if error.code() not in messages.RETRIABLE or time.monotonic() + pause >= deadline:
                    raise ServingError(f"{self.address}: {error.details()}", error.code().name) from error
            time.sleep(pause)
        raise AssertionError("backoff never ends")
