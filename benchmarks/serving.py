"""Requests a second and latency of the embedded server, beside calls of the same signature in this process.

Closed loop: each of 1, 8 and 32 clients sends its next request when the last is answered. Rounds of the server, the server with
batching, and in-process calls alternate in one run, so that all meet the same machine; medians over the rounds are printed, and at
the end which aims were met.

    python -m benchmarks.serving [--seconds 3] [--rounds 3] [--clients 1 8 32]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.client import Client

SMALL, LARGE, WIDE = "small", "large", "wide"
IN_PROCESS, SERVER, BATCHING = "in process", "server", "with batching"
BATCHING_PARAMETERS = """max_batch_size { value: 8 } batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 1000 } num_batch_threads { value: 2 }"""


def save_models(folder: Path) -> dict[str, np.ndarray]:
    """Three models and their inputs.

    `small` scales 64 KiB of numbers. `large` runs convolutions for some tens of milliseconds: on a CPU a row costs the same in any
    batch, so that batching has nothing to win. `wide` multiplies by large matrices, which a batch reads from memory only once.
    """
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

    class Multiply(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [tf.Variable(tf.random.stateless_normal([3072, 3072], [1, i], stddev=0.02)) for i in range(6)]

        @tf.function(input_signature=[tf.TensorSpec([None, 3072], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            for weight in self.weights:
                x = tf.nn.relu(tf.matmul(x, weight))
            return {"y": x}

    for name, module in ((SMALL, Scale()), (LARGE, Convolve()), (WIDE, Multiply())):
        tf.saved_model.save(module, str(folder / name / "1"), signatures={"serving_default": module.__call__})
    rng = np.random.default_rng(0)
    return {
        SMALL: rng.normal(size=(1, 16384)).astype(np.float32),
        LARGE: rng.normal(size=(1, 128, 128, 32)).astype(np.float32),
        WIDE: rng.normal(size=(1, 3072)).astype(np.float32),
    }


@contextlib.contextmanager
def server(folder: Path, *flags: str) -> Iterator[str]:
    """The embedded server over all models, in its own process; its address."""
    config = folder / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for name in (SMALL, LARGE, WIDE)
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    command = [sys.executable, "-m", "serving.server", "--port=0", f"--model_config_file={config}", *flags]
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


@dataclasses.dataclass(frozen=True)
class Result:
    """Medians over the rounds: requests/s; latency in milliseconds."""

    rate: float
    p50: float
    p99: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Embedded server against calls in process.")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: 3)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="numbers of clients (default: 1 8 32)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    results: dict[tuple[str, int, str], Result] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        inputs = save_models(folder)
        (folder / "batching.config").write_text(BATCHING_PARAMETERS)
        batching = "--enable_batching", f"--batching_parameters_file={folder}/batching.config"
        plain, batched = (stack.enter_context(Client(stack.enter_context(server(folder, *flags)))) for flags in ((), batching))
        print(f"{'model':7}{'clients':>8}  {'':14}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'of in-process':>15}")
        for model, x in inputs.items():
            signature = tf.saved_model.load(str(folder / model / "1")).signatures["serving_default"]
            calls = {
                IN_PROCESS: lambda signature=signature, x=x: signature(x=tf.constant(x))["y"].numpy(),
                SERVER: lambda model=model, x=x: plain.predict(model, {"x": x}),
                BATCHING: lambda model=model, x=x: batched.predict(model, {"x": x}),
            }
            for side in (SERVER, BATCHING):
                np.testing.assert_allclose(calls[side]()["y"], calls[IN_PROCESS](), rtol=1e-4, atol=1e-5)
            for clients in arguments.clients:
                for side, result in _compare(calls, clients, arguments.rounds, arguments.seconds).items():
                    results[model, clients, side] = result
                    share = result.rate / results[model, clients, IN_PROCESS].rate
                    print(
                        f"{model:7}{clients:8}  {side:14}{result.rate:11.1f}{result.p50:9.2f}{result.p99:9.2f}{share:15.2f}",
                        flush=True,
                    )
    _print_aims(results, arguments.clients)


def _compare(calls: dict[str, Callable[[], object]], clients: int, rounds: int, seconds: float) -> dict[str, Result]:
    rates: dict[str, list[float]] = {side: [] for side in calls}
    latencies: dict[str, list[np.ndarray]] = {side: [] for side in calls}
    for call in calls.values():
        closed_loop(call, clients, 0.5)
    for _ in range(rounds):
        for side, call in calls.items():
            started = time.perf_counter()
            latencies[side].append(1000 * closed_loop(call, clients, seconds))
            rates[side].append(len(latencies[side][-1]) / (time.perf_counter() - started))
    return {
        side: Result(
            float(np.median(rates[side])), *(float(np.median([np.percentile(r, q) for r in latencies[side]])) for q in (50, 99))
        )
        for side in calls
    }


def _print_aims(results: dict[tuple[str, int, str], Result], clients: Sequence[int]) -> None:
    print("\n" + "aim".ljust(72) + "measured")
    if 8 in clients:
        for model in (LARGE, WIDE):
            one = results[model, 8, IN_PROCESS].rate
            share, gain = (results[model, 8, side].rate / one for side in (SERVER, BATCHING))
            print(
                f"{model}, 8 clients: at least 0.7 of in-process throughput".ljust(72)
                + f"{share:8.2f}  {_verdict(share >= 0.7)}"
            )
            print(
                f"{model}, 8 clients, batching: above in-process throughput".ljust(72) + f"{gain:8.2f}  {_verdict(gain > 1.0)}"
            )
    if 1 in clients:
        overhead = results[SMALL, 1, SERVER].p50 - results[SMALL, 1, IN_PROCESS].p50
        print("small, 64 KiB request: overhead p50 below 2 ms".ljust(72) + f"{overhead:8.2f}  {_verdict(overhead < 2.0)}")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()
