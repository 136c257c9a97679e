"""The server that is asked, and ways to start one with flags of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import shlex
import subprocess
from collections.abc import Iterator

import grpc
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.client import Client
from tests.serving.conformance import models
from tests.serving.conftest import LOCAL, free_port, local_server


@dataclasses.dataclass
class Target:
    """Where a server listens; `rest` "": nowhere that is known."""

    grpc: str
    rest: str

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """Code and document (or text) that REST answers; bytes are sent as they are."""
        if not self.rest:
            pytest.skip("MEDSYNTH_SERVER_REST does not say where REST is")
        connection = http.client.HTTPConnection(self.rest, timeout=30)
        connection.request(method, path, body if isinstance(body, (bytes, type(None))) else json.dumps(body))
        response = connection.getresponse()
        text = response.read().decode("utf-8", "surrogateescape")
        connection.close()
        return response.status, json.loads(text) if "json" in response.headers["Content-Type"] else text


@contextlib.contextmanager
def started(*flags: str) -> Iterator[Target]:
    """A server with these flags: the command in MEDSYNTH_SERVER_COMMAND, or the embedded one."""
    command = os.environ.get("MEDSYNTH_SERVER_COMMAND")
    if not command:
        with local_server(*flags, rest=True) as server:
            yield Target(server.address, f"{LOCAL}:{server.server.rest_port}")
        return
    ports = free_port(), free_port()
    arguments = [*shlex.split(command), f"--port={ports[0]}", f"--rest_api_port={ports[1]}", *flags]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Target(f"{LOCAL}:{ports[0]}", f"{LOCAL}:{ports[1]}")
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def start():
    """`started`, unless one given server is all that there is."""
    if os.environ.get("MEDSYNTH_SERVER"):
        pytest.skip("needs a server of its own: MEDSYNTH_SERVER names one that runs already")
    return started


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return models.write(tmp_path_factory.mktemp("conformance"))


@pytest.fixture(scope="session")
def target(request):
    address = os.environ.get("MEDSYNTH_SERVER")
    if address:
        yield Target(address, os.environ.get("MEDSYNTH_SERVER_REST", ""))
        return
    folder = request.getfixturevalue("folder")
    flags = f"--model_config_file={folder}/models.config", f"--monitoring_config_file={folder}/monitoring.config"
    with started(*flags) as running:
        yield running


@pytest.fixture(scope="session")
def client(target):
    with Client(target.grpc) as connected:
        for name in models.SERVED:
            connected.wait_ready(name, timeout=120)
        yield connected


@pytest.fixture(scope="session")
def channel(target, client):
    with grpc.insecure_channel(target.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def model_stub(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)
