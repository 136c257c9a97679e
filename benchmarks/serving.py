"""Requests a second and latency of the embedded server, beside calls of the same signature in this process.

Closed loop: each of 1 and 8 clients sends its next request when the last is answered. Rounds of server and in-process alternate
in one run, so that both meet the same machine; medians over the rounds are printed.

    python -m benchmarks.serving [--seconds 3] [--rounds 3] [--clients 1 8]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.client import Client

SMALL, LARGE = "small", "large"


def save_models(folder: Path) -> dict[str, np.ndarray]:
    """Two models: `small` scales 64 KiB of numbers, `large` runs convolutions for some tens of milliseconds; their inputs."""
    kernels = tf.random.stateless_normal([6, 3, 3, 32, 32], [0, 1], stddev=0.05)

    class Scale(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 16384], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * 2.0}

    class Convolve(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 128, 128, 32], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            for kernel in tf.unstack(kernels):
                x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
            return {"y": tf.reduce_mean(x, [1, 2])}

    for name, module in ((SMALL, Scale()), (LARGE, Convolve())):
        tf.saved_model.save(module, str(folder / name / "1"), signatures={"serving_default": module.__call__})
    rng = np.random.default_rng(0)
    return {
        SMALL: rng.normal(size=(1, 16384)).astype(np.float32),
        LARGE: rng.normal(size=(1, 128, 128, 32)).astype(np.float32),
    }


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """The embedded server over both models, in its own process; its address."""
    config = folder / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}' for name in (SMALL, LARGE)
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    command = [sys.executable, "-m", "serving.server", "--port=0", f"--model_config_file={config}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield "127.0.0.1:" + process.stdout.readline().rsplit(":", 1)[1].split()[0]
    finally:
        process.terminate()
        process.wait()


def closed_loop(call: Callable[[], object], clients: int, seconds: float) -> np.ndarray:
    """Latencies in seconds, [N], of `clients` threads that call again and again for `seconds`."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    end = time.perf_counter() + seconds

    def work(mine: list[float]) -> None:
        started = time.perf_counter()
        while started < end:
            call()
            now = time.perf_counter()
            mine.append(now - started)
            started = now

    threads = [threading.Thread(target=work, args=(mine,)) for mine in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate([np.array(mine) for mine in latencies])


def main() -> None:
    parser = argparse.ArgumentParser(description="Embedded server against calls in process.")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: 3)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="numbers of clients (default: 1 8)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryDirectory() as folder:
        inputs = save_models(Path(folder))
        print(f"{'model':7}{'clients':>8}  {'':12}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'of in-process':>15}")
        with server(Path(folder)) as address, Client(address) as client:
            for name, x in inputs.items():
                signature = tf.saved_model.load(str(Path(folder) / name / "1")).signatures["serving_default"]
                calls = {
                    "in process": lambda signature=signature, x=x: signature(x=tf.constant(x))["y"].numpy(),
                    "server": lambda name=name, x=x: client.predict(name, {"x": x}),
                }
                np.testing.assert_allclose(calls["server"]()["y"], calls["in process"](), rtol=1e-4, atol=1e-5)
                for clients in arguments.clients:
                    _compare(name, clients, calls, arguments)


def _compare(name: str, clients: int, calls: dict[str, Callable[[], object]], arguments: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {side: [] for side in calls}
    latencies: dict[str, list[np.ndarray]] = {side: [] for side in calls}
    for call in calls.values():
        closed_loop(call, clients, 0.5)
    for _ in range(arguments.rounds):
        for side, call in calls.items():
            started = time.perf_counter()
            latencies[side].append(closed_loop(call, clients, arguments.seconds))
            rates[side].append(len(latencies[side][-1]) / (time.perf_counter() - started))
    for side in calls:
        p50, p99 = 1000 * np.percentile(np.concatenate(latencies[side]), [50, 99])
        ratio = f"{np.median(rates[side]) / np.median(rates['in process']):15.2f}" if side == "server" else ""
        print(f"{name:7}{clients:8}  {side:12}{np.median(rates[side]):11.1f}{p50:9.2f}{p99:9.2f}{ratio}", flush=True)


if __name__ == "__main__":
    main()
