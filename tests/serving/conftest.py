"""Real servers in their own processes, over exports of a tiny method."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsynth_tf.training.export import export
from serving.client import Client
from serving.server.flags import parse
from serving.server.process import ModelServer
from tests.serving.tiny_method import TinyConfig, TinyMethod

LOCAL = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]


class ServerProcess:
    """A running `python -m serving.server`."""

    def __init__(self, process: subprocess.Popen[str], address: str):
        self.process = process
        self.address = address


@contextlib.contextmanager
def running_server(*flags: str, log: Path | None = None) -> Iterator[ServerProcess]:
    """Starts a server on a free port, waits for its ready line, and stops it at the end."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with open(log or os.devnull, "w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", "--port=0", *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"Running gRPC ModelServer at 0\.0\.0\.0:(\d+) \.\.\.\n", line)
        assert match, f"no ready line but {line!r}; exit code {process.poll()}"
        yield ServerProcess(process, f"127.0.0.1:{match[1]}")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class LocalServer:
    """A server in this process: starts in milliseconds, for what does not need a process of its own."""

    def __init__(self, server: ModelServer):
        self.server = server
        self.address = f"{LOCAL}:{server.port}"
        self.rest = f"http://{LOCAL}:{server.rest_port}"


@contextlib.contextmanager
def local_server(*flags: str, rest: bool = False) -> Iterator[LocalServer]:
    """Starts a server with these flags on free ports, and stops it at the end."""
    ports = ["--port=0", *([f"--rest_api_port={free_port()}"] if rest else [])]
    with ModelServer(parse([*ports, *flags])) as server:
        server.start(threading.Event())
        yield LocalServer(server)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def tiny_model():
    return TinyMethod(TinyConfig())


@pytest.fixture(scope="session")
def served_folder(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "tiny"
    export(tiny_model, folder)
    return folder


@pytest.fixture(scope="session")
def server(served_folder):
    with local_server("--model_name=tiny", f"--model_base_path={served_folder}") as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with Client(server.address) as connected:
        yield connected
