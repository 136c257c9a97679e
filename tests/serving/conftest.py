"""Real servers in their own processes, over exports of a tiny method."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsynth_tf.training.export import export
from serving.client import Client
from tests.serving.tiny_method import TinyConfig, TinyMethod

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
    with running_server("--model_name=tiny", f"--model_base_path={served_folder}") as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with Client(server.address) as connected:
        yield connected
