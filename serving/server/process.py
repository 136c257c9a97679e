"""The server as a process: binds, loads, says when it is ready, and drains on SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from medsynth_tf.core.errors import MedSynthError, ServingError
from serving.server import flags as server_flags
from serving.server.manager import Manager
from serving.server.services import ModelService, PredictionService
from serving.server.status import StatusError

log = logging.getLogger(__name__)
DRAIN_SECONDS = 25.0  # under the 30 that Kubernetes gives between SIGTERM and SIGKILL
SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in ((prediction_service_pb2.DESCRIPTOR, "PredictionService"), (model_service_pb2.DESCRIPTOR, "ModelService"))
)


class ModelServer:
    """A gRPC server over a Manager."""

    def __init__(self, manager: Manager, max_threads: int):
        self._manager = manager
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a second server on it
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(manager), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(manager), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    def bind(self, address: str) -> int:
        """Listens on `address`; returns the port.

        Raises:
            ServingError: the address is taken or not one.
        """
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ServingError(f"cannot listen on {address}: is it taken, or not allowed?", "UNAVAILABLE") from error

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Refuses new requests (UNAVAILABLE), lets those running finish for up to `seconds`, then unloads all models."""
        self._health.enter_graceful_shutdown()
        self._server.stop(seconds).wait()
        self._manager.stop()

    def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit code. Prints one line on stdout when ready, with the address."""
    flags = server_flags.parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _serve(flags, stop)
    except MedSynthError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return 0


def _serve(flags: argparse.Namespace, stop: threading.Event) -> None:
    manager = Manager(flags.file_system_poll_wait_seconds)
    config = server_flags.model_config(flags)
    server = ModelServer(manager, flags.grpc_max_threads)
    try:
        port = server.bind(f"0.0.0.0:{flags.port}")
        if flags.grpc_socket_path:
            server.bind(f"unix:{flags.grpc_socket_path}")
        try:
            manager.configure(config)
        except StatusError as error:
            raise ServingError(f"Failed to start server. Error: {error.message}", error.code.name) from error
        manager.start_polling()
        while not stop.is_set() and not manager.wait_available(timeout=0.2):
            pass  # as TensorFlow Serving: not ready before each model has a version
        if not stop.is_set():
            server.start()
            print(f"Running gRPC ModelServer at 0.0.0.0:{port} ...", flush=True)
            stop.wait()
    finally:
        log.info("draining")
        server.drain()
