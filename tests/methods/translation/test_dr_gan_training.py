"""dr_gan through the trainer: all stages, on one device and on two replicas, killed and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.methods.saving import load
from medsynth_tf.training.trainer import train
from tests.methods.interruption import StopAfter
from tests.methods.tiny import TINY

SOURCE = "phantom:graded_lesions?count=11&size=32"  # nine to train on, so that a pass ends with half a batch
STAGES = ["grading", "gaussians", "coarse", "fine"]

WORKER = """
import json, sys
import tensorflow as tf
virtual = int(sys.argv[1])
if virtual > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * virtual)
from medsynth_tf.data.open import open_source
from medsynth_tf.training.trainer import train
from tests.methods.translation.test_dr_gan_training import SOURCE, tiny
class Steps(tf.keras.callbacks.Callback):
    losses = []
    def on_train_batch_end(self, batch, logs=None):
        self.losses.append({name: float(value) for name, value in logs.items()})
steps = Steps()
run = train(tiny(**{"training.strategy": sys.argv[2]}), open_source(SOURCE), sys.argv[3], progress=False, callbacks=[steps])
gaussians = run.model.gaussians
print(json.dumps({"losses": steps.losses, "replicas": run.model.distribute_strategy.num_replicas_in_sync,
                  "count": tf.convert_to_tensor(gaussians.count).numpy().tolist(), "mean": gaussians.mean.numpy().tolist()}))
"""


def tiny(**overrides):
    few = {
        "training.epochs": 1,
        "training.steps_per_epoch": 2,
        "training.checkpoint_steps": 1,
        "training.image_steps": 100,
        "fine.epochs": 1,
        "grading.epochs": 1,
    }
    return ms.load_config("dr_gan", overrides={**TINY["dr_gan"][0], **few, **overrides})


def result(devices, strategy, folder):
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(devices), strategy, str(folder)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_two_replicas_compute_what_one_device_does(tmp_path):
    one, two = result(1, "one_device", tmp_path / "one"), result(2, "mirrored", tmp_path / "two")
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert sum(one["count"]) == 9
    assert two["count"] == one["count"]
    np.testing.assert_allclose(two["mean"], one["mean"], atol=1e-4)
    assert len(one["losses"]) == len(two["losses"]) == 2 + 5 + 2 + 2
    for first, second in zip(one["losses"], two["losses"]):
        assert set(first) == set(second)
        for name in set(first) - {"images"}:
            assert second[name] == pytest.approx(first[name], abs=2e-4), name


@pytest.mark.slow
def test_runs_killed_in_any_stage_go_on_to_the_same_weights(tmp_path):
    source = ms.open_source(SOURCE)
    whole = train(tiny(), source, tmp_path / "whole", progress=False).model
    # running means of losses: those of the epoch that was broken off begin anew
    parts = [whole, *(part for part in whole._flatten_layers(include_self=False) if isinstance(part, tf.keras.Model))]
    means = {v.ref() for part in parts for metric in part.metrics for v in metric.variables}
    for steps in (1, 4, 8, 10):  # in each of the four stages
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), source, tmp_path / str(steps), progress=False, callbacks=[StopAfter(steps)])
        resumed = train(tiny(), source, tmp_path / str(steps), progress=False).model
        for one, other in zip(whole.variables, resumed.variables):
            if one.ref() in means:
                continue
            np.testing.assert_array_equal(one, other, err_msg=f"killed after {steps} steps: {one.name}")
    restored = load(tmp_path / "whole" / "model")
    assert bool(restored.gaussians.settled)
    np.testing.assert_array_equal(restored.gaussians.mean, whole.gaussians.mean)
    log = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in log[1:]] == STAGES
