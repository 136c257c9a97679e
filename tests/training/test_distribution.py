"""One device, two replicas in a process, and two worker processes compute the same losses for the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = """
import json, sys
import tensorflow as tf
virtual = int(sys.argv[1])
if virtual > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * virtual)
from medsynth_tf.data.open import open_source
from medsynth_tf.training.trainer import train
from tests.training.test_trainer import SOURCE, tiny
class Steps(tf.keras.callbacks.Callback):
    losses = []
    def on_train_batch_end(self, batch, logs=None):
        self.losses.append({name: float(value) for name, value in logs.items()})
overrides = {"training.strategy": sys.argv[2], "training.batch_size": 4, "training.epochs": 1, "training.steps_per_epoch": 5,
             "training.checkpoint_steps": 2, "training.clip_norm": 1.0,
             "data.split_fractions": [0.35, 0.5, 0.15]}  # six held-out images: of the last two one replica would get both
steps = Steps()
run = train(tiny(**overrides), open_source(SOURCE), sys.argv[3], progress=False, callbacks=[steps])
print(json.dumps({"losses": steps.losses, "replicas": run.model.distribute_strategy.num_replicas_in_sync}))
"""


def start(devices, strategy, folder, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(devices), strategy, str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )


def result(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.strip().splitlines()[-1])


def table(outcome):
    return np.array([[step[name] for name in sorted(step)] for step in outcome["losses"]])


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    outcome = result(start(1, "one_device", tmp_path_factory.mktemp("one") / "run"))
    assert outcome["replicas"] == 1
    assert len(outcome["losses"]) == 5
    return table(outcome)


def test_mirrored_on_two_virtual_cpus_equals_one_device(one_device, tmp_path):
    outcome = result(start(2, "mirrored", tmp_path / "run"))
    assert outcome["replicas"] == 2
    np.testing.assert_allclose(table(outcome), one_device, atol=1e-4)


def test_two_workers_equal_one_device_and_only_the_chief_writes(one_device, tmp_path):
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    workers = [
        start(
            1,
            "multi_worker",
            tmp_path / "run",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]
    outcomes = [result(worker) for worker in workers]
    for outcome in outcomes:
        assert outcome["replicas"] == 2
        np.testing.assert_allclose(table(outcome), one_device, atol=1e-4)
    assert (tmp_path / "run" / "model" / "weights.index").is_file()
    assert not [p for p in (tmp_path / "run").rglob("*") if "temp" in p.name]
