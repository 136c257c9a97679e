"""Ten minutes under load: a hot swap each minute, no failed request, memory flat, and a clean end.

`MEDSYNTH_SOAK_SECONDS` makes it shorter; the first tenth warms up and is not measured.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from medsynth_tf.core.errors import ServingError
from medsynth_tf.training.export import export
from serving.client import Client
from tests.serving.conftest import running_server
from tests.serving.tiny_method import TinyConfig, TinyMethod

SECONDS = float(os.environ.get("MEDSYNTH_SOAK_SECONDS", "600"))
SWAPS = 10
CLIENTS = 32
INPUTS = {"label_map": np.zeros((2, 8, 8), np.uint8), "seed": np.array([1, 2])}


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_soak(tmp_path):
    folder = tmp_path / "tiny"
    exported = [export(TinyMethod(TinyConfig(seed=number)), tmp_path / "made" / str(number)) for number in range(2)]
    shutil.copytree(exported[0], folder / "1")
    flags = ("--model_name=tiny", f"--model_base_path={folder}", "--file_system_poll_wait_seconds=0.5", "--enable_batching")
    with running_server(*flags) as server:
        stop, failures, counts, versions = threading.Event(), [], [0] * CLIENTS, set()

        def ask(number):
            with Client(server.address) as client:
                while not stop.is_set():
                    try:
                        versions.add(client.predict("tiny", INPUTS, timeout=20).version)
                        counts[number] += 1
                    except ServingError as error:
                        if not stop.is_set():
                            failures.append(error)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        process, memory, started = psutil.Process(server.process.pid), [], time.monotonic()
        for swap in range(SWAPS):
            while time.monotonic() < started + (swap + 0.9) * SECONDS / SWAPS:
                time.sleep(SECONDS / SWAPS / 10)
                memory.append((time.monotonic() - started, process.memory_info().rss))
            shutil.copytree(exported[(swap + 1) % 2], folder / ".next")
            (folder / ".next").rename(folder / str(swap + 2))
            while time.monotonic() < started + (swap + 1) * SECONDS / SWAPS:
                time.sleep(0.05)
        stop.set()
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert server.process.wait(30) == 0
    assert failures == []
    assert sum(counts) > SECONDS
    assert len(versions) >= SWAPS
    settled = [rss for at, rss in memory if at > SECONDS / 10]
    first, last = np.median(settled[: len(settled) // 3]), np.median(settled[-len(settled) // 3 :])
    assert last < 1.05 * first, f"memory grew from {first / 2**20:.0f} to {last / 2**20:.0f} MiB"
