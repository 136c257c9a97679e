"""The server as a process: binds, loads, says when it is ready, and drains on SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from medsynth_tf.core.errors import MedSynthError, ServingError
from serving.server import flags as server_flags
from serving.server import storage, tflite
from serving.server.batching import Batcher, BatchingOptions
from serving.server.grpc_server import GrpcServer
from serving.server.inference import Inference
from serving.server.loader import Loader
from serving.server.manager import Manager
from serving.server.metrics import Metrics
from serving.server.reloading import Reloading
from serving.server.rest import RestServer
from serving.server.security import Token, server_credentials
from serving.server.status import StatusError

log = logging.getLogger(__name__)
DRAIN_SECONDS = 25.0  # under the 30 that Kubernetes gives between SIGTERM and SIGKILL


class ModelServer:
    """A server as the flags describe it: everything is checked and bound when it is made; a `with` drains it at the end."""

    def __init__(self, flags: argparse.Namespace):
        """`flags` as serving.server.flags.parse returns them.

        Raises:
            ConfigError: the flags or the files they name contradict themselves. ServingError: an address is taken.
        """
        self._flags = flags
        self._config = server_flags.model_config(flags)
        self.metrics = Metrics()
        batching = server_flags.batching_options(flags)
        threads = server_flags.request_threads(batching)
        self.manager = Manager(
            flags.file_system_poll_wait_seconds,
            _loader(flags, self.metrics, batching),
            allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
            load_retries=flags.max_num_load_retries,
            retry_seconds=flags.load_retry_interval_micros / 1e6,
            load_threads=flags.num_load_threads,
            unload_threads=flags.num_unload_threads,
            version_files=(*storage.SAVED_MODEL_FILES, *([tflite.FILE] if flags.prefer_tflite_model else [])),
        )
        inference = Inference(self.manager, self.metrics, flags.enable_signature_method_name_check)
        roots = [model.base_path for model in self._config.model_config_list.config] + flags.reload_base_paths
        self._reloading = Reloading(self.manager, roots)
        token = Token(flags.token_file) if flags.token_file else None
        credentials = server_credentials(flags.ssl_config_file) if flags.ssl_config_file else None
        self._grpc = GrpcServer(
            inference, self._reloading, flags.grpc_max_threads or threads, flags.grpc_channel_arguments, token
        )
        self.port = self._grpc.bind(f"0.0.0.0:{flags.port}", credentials)
        if flags.grpc_socket_path:
            self._grpc.bind(f"unix:{flags.grpc_socket_path}")
        self._rest = _rest_server(flags, inference, token, threads)
        self.rest_port = self._rest.port if self._rest else 0

    def start(self, stop: threading.Event) -> None:
        """Loads, then answers; returns early if `stop` is set meanwhile.

        Raises:
            ServingError: no version of a model can be loaded.
        """
        flags = self._flags
        try:
            self.manager.configure(self._config)
        except StatusError as error:
            raise ServingError(f"Failed to start server. Error: {error.message}", error.code.name) from error
        self.manager.start_polling()
        if flags.model_config_file and flags.model_config_file_poll_wait_seconds:
            seconds = flags.model_config_file_poll_wait_seconds
            self._reloading.watch(self._config, lambda: server_flags.model_config(flags), seconds)
        while not stop.is_set() and not self.manager.wait_available(timeout=0.2):
            pass  # as TensorFlow Serving: not ready before each model has a version
        if not stop.is_set():
            self._grpc.start()
            if self._rest is not None:
                self._rest.start()

    def close(self) -> None:
        """Refuses new requests on both roads, lets those running finish, then unloads all models."""
        deadline = time.monotonic() + DRAIN_SECONDS
        drained = self._grpc.begin_drain(DRAIN_SECONDS)
        if self._rest is not None:
            self._rest.drain(DRAIN_SECONDS)
        drained.wait(max(0.0, deadline - time.monotonic()) + 1.0)
        self._reloading.stop()
        self.manager.stop()

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit code. Prints a line on stdout for each address when ready."""
    flags = server_flags.parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with ModelServer(flags) as server:
            server.start(stop)
            if not stop.is_set():
                print(f"Running gRPC ModelServer at 0.0.0.0:{server.port} ...", flush=True)
                if server.rest_port:
                    print(f"Exporting HTTP/REST API at:localhost:{server.rest_port} ...", flush=True)
            stop.wait()
            log.info("draining")
    except MedSynthError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return 0


def _loader(flags: argparse.Namespace, metrics: Metrics, options: BatchingOptions | None) -> Loader:
    batcher = Batcher(options, metrics.batch_size.observe, metrics.queuing_latency.observe) if options else None
    return Loader(
        metrics=metrics,
        batcher=batcher,
        tags=tuple(flags.saved_model_tags),
        warmup=flags.enable_model_warmup,
        warmup_iterations=flags.num_request_iterations_for_warmup,
        prefer_tflite=flags.prefer_tflite_model,
        interpreters=flags.num_tflite_interpreters_per_pool,
        session_config=server_flags.session_config(flags),
        flush_caches=flags.flush_filesystem_caches,
    )


def _rest_server(flags: argparse.Namespace, inference: Inference, token: Token | None, threads: int) -> RestServer | None:
    path = server_flags.metrics_path(flags)
    if not flags.rest_api_port:
        return None
    return RestServer(
        inference,
        flags.rest_api_port,
        threads=flags.rest_api_num_threads or threads,
        timeout_ms=flags.rest_api_timeout_in_ms,
        max_bytes=flags.rest_api_max_request_bytes,
        metrics_path=path,
        cors=flags.rest_api_enable_cors_support,
        token=token,
    )
