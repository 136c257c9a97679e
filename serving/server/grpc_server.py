"""The gRPC server: services, health and reflection, with a pool of threads for requests and one for questions about them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from medsynth_tf.core.errors import ServingError
from serving.server.inference import Inference
from serving.server.reloading import Reloading
from serving.server.security import Token, TokenInterceptor
from serving.server.services import ModelService, PredictionService

QUESTION_THREADS = 4
SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in ((prediction_service_pb2.DESCRIPTOR, "PredictionService"), (model_service_pb2.DESCRIPTOR, "ModelService"))
)


class _Health(health.HealthServicer):
    """Health whose checks run in a pool of their own: a probe must not wait behind the requests it asks about."""

    def __init__(self, pool: futures.ThreadPoolExecutor):
        super().__init__(experimental_non_blocking=True, experimental_thread_pool=pool)
        self.Check = _in_pool(super().Check, pool)


class _Models(ModelService):
    """GetModelStatus in a pool of its own, for the same reason."""

    def __init__(self, inference: Inference, reloading: Reloading, pool: futures.ThreadPoolExecutor):
        super().__init__(inference, reloading)
        self.GetModelStatus = _in_pool(super().GetModelStatus, pool)  # type: ignore[method-assign]


def _in_pool(method: Callable[..., Any], pool: futures.ThreadPoolExecutor) -> Callable[..., Any]:
    """gRPC runs a handler in the pool that hangs on it under this name."""

    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        return method(request, context)

    handler.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return handler


class GrpcServer:
    """Binds, answers, drains."""

    def __init__(
        self,
        inference: Inference,
        reloading: Reloading,
        max_threads: int,
        channel_arguments: Sequence[tuple[str, int | str]] = (),
        token: Token | None = None,
    ):
        """`max_threads`: requests answered at the same time. `channel_arguments` go to gRPC as they are."""
        questions = futures.ThreadPoolExecutor(QUESTION_THREADS, thread_name_prefix="grpc-questions")
        self._health = _Health(questions)
        options: dict[str, int | str] = {
            "grpc.max_receive_message_length": -1,  # a volume is larger than gRPC's 4 MiB
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": 0,  # a port that is taken is an error, not a second server on it
        }
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
            interceptors=[TokenInterceptor(token)] if token else [],
            options=list({**options, **dict(channel_arguments)}.items()),
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(inference), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(inference, reloading, questions), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listens on `address`; returns the port.

        Raises:
            ServingError: the address is taken or not one.
        """
        try:
            if credentials is not None:
                return self._server.add_secure_port(address, credentials)
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ServingError(f"cannot listen on {address}: is it taken, or not allowed?", "UNAVAILABLE") from error

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def begin_drain(self, seconds: float) -> threading.Event:
        """Refuses new requests (UNAVAILABLE); the event is set when those running are done, or cut off after `seconds`."""
        self._health.enter_graceful_shutdown()
        return self._server.stop(seconds)

    def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)
