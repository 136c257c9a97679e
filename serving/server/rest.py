"""The HTTP server of the REST API and the Prometheus page, on the standard library's.

A thread per connection, so that idle keep-alive connections hold up nobody; a semaphore bounds how many requests run.
"""

from __future__ import annotations

import http.server
import logging
import socket
import threading
import urllib.parse
import zlib
from http import HTTPStatus
from typing import Any

from grpc import StatusCode

from medsynth_tf.core.errors import ServingError
from serving.server.inference import Inference
from serving.server.rest_api import Answer, RestApi, failure
from serving.server.security import REFUSAL, Token
from serving.server.status import StatusError

log = logging.getLogger(__name__)
MAX_CONNECTIONS = 1024
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET,POST,OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type,Authorization",
}


class RestServer:
    """Listens from the start, answers once started."""

    def __init__(
        self,
        inference: Inference,
        port: int,
        *,
        threads: int,
        timeout_ms: int,
        max_bytes: int,
        metrics_path: str = "",
        cors: bool = False,
        token: Token | None = None,
    ):
        """`metrics_path` "": no metrics. `max_bytes`: of a request's body, also once unpacked.

        Raises:
            ServingError: the port is taken.
        """
        self.api = RestApi(inference, timeout_ms)
        self.metrics_path = metrics_path
        self.metrics = inference.metrics
        self.timeout_seconds = timeout_ms / 1000
        self.max_bytes = max_bytes
        self.cors = cors
        self.token = token
        self.draining = threading.Event()
        self._running = threading.Semaphore(threads)
        self._active = 0
        self._idle = threading.Condition()
        try:
            self._http = _HttpServer(("0.0.0.0", port), self)
        except OSError as error:
            raise ServingError(f"cannot listen on port {port} for REST: {error.strerror}", "UNAVAILABLE") from error
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="rest", daemon=True)

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def drain(self, seconds: float) -> None:
        """Takes no more connections, and waits up to `seconds` for the requests that run."""
        self.draining.set()
        if self._thread.is_alive():
            self._http.shutdown()
        self._http.server_close()
        with self._idle:
            if not self._idle.wait_for(lambda: self._active == 0, seconds):
                log.warning("cutting off %d REST requests", self._active)

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> Answer:
        """The answer to one request, once it is its turn."""
        if self.token is not None and not self.token.allows(authorization):
            return failure(StatusError(StatusCode.UNAUTHENTICATED, REFUSAL))
        if self.metrics_path and path == self.metrics_path:
            return Answer(200, self.metrics.page().encode(), "text/plain")
        if not path.lower().startswith("/v1/"):
            return failure(StatusError(StatusCode.NOT_FOUND, f"Not found: {path}"))
        if method == "GET":  # questions, which do not wait behind requests
            return self.api.answer(method, path, body)
        if not self._running.acquire(timeout=self.timeout_seconds):
            return failure(StatusError(StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded before the request was started"))
        try:
            return self.api.answer(method, path, body)
        finally:
            self._running.release()

    def begin_request(self) -> None:
        """Counts a request in, so that draining waits for it."""
        with self._idle:
            self._active += 1

    def end_request(self) -> None:
        """Counts it out, once its answer is written."""
        with self._idle:
            self._active -= 1
            self._idle.notify_all()


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], rest: RestServer):
        self.rest = rest
        self._connections = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection of %s broke", client_address, exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    server_version = "medsynth"
    sys_version = ""
    server: _HttpServer

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.rest.timeout_seconds)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _handle(self) -> None:
        rest = self.server.rest
        rest.begin_request()
        try:
            body = self._body()
            if isinstance(body, Answer):
                self.close_connection = True  # what is left of the body cannot be told from a next request
                self._write(body)
                return
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            if self.command == "OPTIONS" and rest.cors:
                self._write(Answer(200, b"", "text/plain"))
            else:
                self._write(rest.answer(self.command, path, body, self.headers.get("Authorization")))
        finally:
            rest.end_request()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _handle

    def _body(self) -> bytes | Answer:
        """The request's body, unpacked; or why it is not taken."""
        limit = self.server.rest.max_bytes
        if "Transfer-Encoding" in self.headers:
            return _refusal(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length; chunked bodies are not taken")
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal():
            return _refusal(HTTPStatus.BAD_REQUEST, f"Content-Length {length} is not a number")
        if int(length) > limit:
            return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return _refusal(HTTPStatus.BAD_REQUEST, f"the body ended after {len(body)} bytes of {length}")
        if self.headers.get("Content-Encoding", "").lower() != "gzip":
            return body
        unpacker = zlib.decompressobj(wbits=31)
        try:
            body = unpacker.decompress(body, limit)
        except zlib.error:
            return _refusal(HTTPStatus.BAD_REQUEST, "the body is not gzip")
        if unpacker.unconsumed_tail:
            return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit} bytes")
        return body

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.code)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.server.rest.cors:
            for name, value in CORS_HEADERS.items():
                self.send_header(name, value)
        if self.server.rest.draining.is_set() or self.close_connection:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Requests that are not HTTP, or of a method nobody knows: JSON like every other refusal."""
        self.close_connection = True
        self.request_version = self.protocol_version  # else what is not HTTP would be answered as HTTP/0.9, without a status
        self._write(_refusal(code, message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *arguments: Any) -> None:
        log.debug(format, *arguments)


def _refusal(code: int, message: str) -> Answer:
    answer = failure(StatusError(StatusCode.INVALID_ARGUMENT, message))
    return Answer(int(code), answer.body)
