"""The embedded server as a child process, for as long as a block of code needs it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from medsynth_tf.core.errors import ServingError

_READY = re.compile(r"Running gRPC ModelServer at \S+:(\d+)")


@contextlib.contextmanager
def running_server(
    name: str, base_path: str | Path, *, timeout: float = 120.0, log: str | Path = os.devnull, flags: Sequence[str] = ()
) -> Iterator[str]:
    """Serves a model on a free port while the block runs; yields its address, `localhost:PORT`.

    Args:
        name: what the model is called.
        base_path: folder of its numbered versions.
        timeout: seconds it may take until it answers.
        log: file for what the server writes on standard error.
        flags: further flags, as of tensorflow_model_server.

    Raises:
        ServingError: it ended or was not ready in time; the last line of its log says why.
    """
    command = [sys.executable, "-m", "serving.server", "--port=0", f"--model_name={name}"]
    command += [f"--model_base_path={Path(base_path).absolute()}", *flags]
    with Path(log).open("w+") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        killer = threading.Timer(timeout, process.kill)  # reading its output would wait for ever
        killer.start()
        try:
            port = _port(process.stdout)  # type: ignore[arg-type]
            killer.cancel()
            if port is None:
                process.wait()
                raise ServingError(f"the model server did not start: {_last_line(Path(log))}", "UNAVAILABLE")
            yield f"localhost:{port}"
        finally:
            killer.cancel()
            process.terminate()


def _port(output: IO[str]) -> str | None:
    for line in output:
        ready = _READY.search(line)
        if ready:
            return ready.group(1)
    return None


def _last_line(log: Path) -> str:
    lines = log.read_text().split("\n") if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
