"""The embedded server as a child process, for as long as a block of code needs it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from medsynth_tf.core.errors import ServingError

_READY = re.compile(r"Running gRPC ModelServer at \S+:(\d+)")


@contextlib.contextmanager
def running_server(
    name: str,
    base_path: str | Path,
    *,
    timeout: float = 120.0,
    log: str | Path = os.devnull,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Serves a model on a free port while the block runs; yields its address, `localhost:PORT`.

    Args:
        name: what the model is called.
        base_path: folder of its numbered versions.
        timeout: seconds it may take until it answers.
        log: file for what the server writes on standard error.
        flags: further flags, as of tensorflow_model_server.
        environment: variables added to this process's.

    Raises:
        ServingError: it ended or was not ready in time; the message holds the last line of its log.
    """
    command = [sys.executable, "-m", "serving.server", "--port=0", f"--model_name={name}"]
    command += [f"--model_base_path={Path(base_path).absolute()}", *flags]
    with Path(log).open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],  # where `serving` can be imported from, whatever the caller's folder
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        watchdog = threading.Timer(timeout, process.kill)  # reading its output would wait for ever
        watchdog.start()
        try:
            port = _port(process.stdout)
            watchdog.cancel()
            if port is None:
                process.wait()
                raise ServingError(f"the model server did not start: {_last_words(Path(log))}", "UNAVAILABLE")
            yield f"localhost:{port}"
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _port(output: IO[str]) -> str | None:
    for line in output:
        ready = _READY.search(line)
        if ready:
            return ready.group(1)
    return None


def _last_words(log: Path) -> str:
    """The server's error, which may run over lines, or else the last line of its log."""
    text = log.read_text() if log.is_file() else ""
    error = re.search(r"^error: (.*)", text, re.MULTILINE | re.DOTALL)
    return " ".join((error[1] if error else text.strip().rpartition("\n")[2] or "it said nothing").split())
