"""The asyncio twin of serving.client.Client."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from medsynth_tf.core.errors import ServingError
from serving import messages
from serving.messages import DEFAULT_SIGNATURE, TLS, ModelMetadata, Prediction, VersionStatus


class AsyncClient:
    """A connection to one server, for one event loop; to be closed (or used in an `async with`).

    Arguments, results and errors are those of serving.client.Client.
    """

    def __init__(self, address: str, token: str | None = None, tls: TLS | None = None):
        """`address`: host:port or unix:path. `token`: sent as a bearer token with each call."""
        self.address = address
        options = list(messages.CHANNEL_OPTIONS)
        self._channel = (
            grpc.aio.secure_channel(address, tls.credentials(), options) if tls else grpc.aio.insecure_channel(address, options)
        )
        self._call_metadata = messages.call_metadata(token)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    async def predict(
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
        """Runs a signature."""
        request = messages.predict_request(model, inputs, signature, version, label, outputs)
        return messages.read_prediction(await self._call(self._prediction.Predict, request, timeout))

    async def predict_chunks(
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
    ) -> AsyncIterator[Prediction]:
        """Runs a signature on a batch of any size, `chunk_size` rows a request; yields the chunks' predictions in order."""
        pieces = messages.chunks(inputs, chunk_size)

        def submit(piece: Mapping[str, np.ndarray]) -> asyncio.Task[Prediction]:
            return asyncio.ensure_future(
                self.predict(model, piece, signature, version=version, label=label, outputs=outputs, timeout=timeout)
            )

        waiting = deque(map(submit, itertools.islice(pieces, in_flight)))
        try:
            while waiting:
                done = await waiting.popleft()
                waiting.extend(map(submit, itertools.islice(pieces, 1)))
                yield done
        finally:
            for task in waiting:
                task.cancel()

    async def metadata(
        self, model: str, version: int | None = None, label: str | None = None, timeout: float = 10.0
    ) -> ModelMetadata:
        """The signatures of a model."""
        request = messages.metadata_request(model, version, label)
        return messages.read_metadata(await self._call(self._prediction.GetModelMetadata, request, timeout))

    async def status(self, model: str, version: int | None = None, timeout: float = 10.0) -> list[VersionStatus]:
        """The versions of a model, newest first."""
        request = messages.status_request(model, version)
        return messages.read_status(await self._call(self._models.GetModelStatus, request, timeout))

    async def wait_ready(self, model: str, timeout: float = 60.0) -> int:
        """Waits until the server answers and a version of `model` is AVAILABLE; the newest such version."""
        deadline = time.monotonic() + timeout
        readiness = messages.Readiness(model, self.address, timeout)
        for pause in messages.backoff():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            try:
                version = readiness.available(await self.status(model, timeout=remaining))
            except ServingError as error:
                readiness.failed(error)
            else:
                if version is not None:
                    return version
            await asyncio.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        raise readiness.error()

    async def close(self) -> None:
        """Closes the connection; calls in progress fail with CANCELLED."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        for pause in messages.backoff():
            try:
                return await method(request, timeout=max(0.0, deadline - time.monotonic()), metadata=self._call_metadata)
            except grpc.RpcError as error:
                if error.code() not in messages.RETRIABLE or time.monotonic() + pause >= deadline:
                    raise ServingError(f"{self.address}: {error.details()}", error.code().name) from error
            await asyncio.sleep(pause)
        raise AssertionError("backoff never ends")
