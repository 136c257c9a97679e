"""Runs of a small semantic_retina: resume, interrupts, NaN, bad folders. All on a generated phantom."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import DataError, NonFiniteLossError, TrainingError
from medsynth_tf.core.registry import load_config
from medsynth_tf.data.open import open_source
from medsynth_tf.methods.saving import create, load
from medsynth_tf.training.trainer import _fits, train

SOURCE = "phantom:fundus?count=12&size=32&labels=vessels"
TINY = {
    "image_size": 32,
    "generator": {"filters": 2, "hidden_filters": 4},
    "style": {"size": 4, "filters": 2},
    "discriminator": {"filters": 4},
    "training": {
        "batch_size": 2,
        "epochs": 4,
        "steps_per_epoch": 6,
        "checkpoint_steps": 5,
        "image_steps": 12,
        "ema_decay": 0.9,
    },
}


def tiny(**overrides):
    return load_config("semantic_retina", "small", {**TINY, **overrides})


def weights(model):
    return {f"{i} {v.name}": v.numpy() for i, v in enumerate(model.variables)}


def state(model):
    """Everything that a resumed run must get back: weights, averages and optimiser slots.

    Not the running means of losses: those of the epoch that was broken off begin anew.
    """
    slots = [*model.generator_optimizer.variables, *model.discriminator_optimizer.variables, *model.average.averages]
    means = {v.ref() for metric in model.metrics for v in metric.variables}
    return [v.numpy() for v in [*model.variables, *slots] if v.ref() not in means]


def differences(a, b):
    return max(float(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)).max(initial=0)) for x, y in zip(a, b))


def in_a_process(folder, wait_for_step=None, kill=None, **environment):
    """Trains in a process of its own; with `kill`, sends that signal once `wait_for_step` is reported."""
    code = f"""
import sys, tensorflow as tf
from tests.training.test_trainer import SOURCE, tiny
from medsynth_tf.data.open import open_source
from medsynth_tf.training.trainer import train
class Report(tf.keras.callbacks.Callback):
    step = 0
    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        print("step", self.step, flush=True)
run = train(tiny(), open_source(SOURCE), {str(folder)!r}, progress=False, callbacks=[Report()])
print("finished", run.finished, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if kill is not None and line.strip() == f"step {wait_for_step}":
            process.send_signal(kill)
    _, errors = process.communicate(timeout=120)
    return process.returncode, lines, errors


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(tiny(), open_source(SOURCE), folder, progress=False)


def test_a_run_leaves_what_its_docstring_says(uninterrupted):
    folder = uninterrupted.folder
    assert uninterrupted.finished
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml", "run.json", "checkpoints", "log.csv", "tensorboard", "pictures", "model"
    }  # fmt: skip
    assert [p.name for p in sorted((folder / "pictures").iterdir())] == ["translation-0000012.png", "translation-0000024.png"]
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [6, 12, 18, 24]
    assert {"generator", "discriminator", "feature_matching", "l1", "kl"} <= set(rows[0])
    restored = load(folder / "model")
    assert differences(state(restored), state(uninterrupted.model)) == 0
    assert int(restored.generator_optimizer.iterations) == 24


def test_after_sigkill_at_a_random_step_the_run_ends_with_the_same_weights(uninterrupted, tmp_path):
    step = random.Random(os.environ.get("PYTEST_SEED", time.time())).randint(6, 22)
    code, lines, _ = in_a_process(tmp_path / "killed", step, signal.SIGKILL)
    assert code == -signal.SIGKILL, f"killed at step {step}: {lines[-1]}"
    assert not (tmp_path / "killed" / "model").exists()
    code, lines, errors = in_a_process(tmp_path / "killed")
    assert lines[-1:] == ["finished True"], errors
    assert len(lines) - 1 < 24, "the second process trained from the start"
    resumed = load(tmp_path / "killed" / "model")
    assert differences(state(resumed), state(uninterrupted.model)) == 0, f"killed at step {step}"
    with (tmp_path / "killed" / "log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [6, 12, 18, 24]


def test_sigint_saves_and_leaves_cleanly(uninterrupted, tmp_path):
    code, lines, errors = in_a_process(tmp_path / "run", 8, signal.SIGINT)
    assert (code, lines[-1]) == (0, "finished False"), errors
    assert "Traceback" not in errors
    reached = int(lines[-2].split()[1])
    saved = int(tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")).rpartition("-")[2])
    assert saved in (reached, reached + 1), "the step in which the signal came is finished and saved"
    resumed = train(tiny(), open_source(SOURCE), tmp_path / "run", progress=False)
    assert differences(state(resumed.model), state(uninterrupted.model)) == 0


class BreakLoss(tf.keras.callbacks.Callback):
    """Spoils a weight, as a diverging run would."""

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.generator_optimizer.iterations) == 7:
            self.model.generator.to_image.bias.assign([np.nan, 0, 0])


def test_nan_stops_the_run_with_step_and_loss(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step 8: .*feature_matching = nan"):
        train(tiny(), open_source(SOURCE), tmp_path / "run", progress=False, callbacks=[BreakLoss()])
    restored = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")))
    for name in restored.get_variable_to_shape_map():
        value = restored.get_tensor(name)
        if np.issubdtype(np.asarray(value).dtype, np.floating):
            assert np.isfinite(value).all(), name
    assert int(restored.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")) == 5


def test_a_folder_belongs_to_one_configuration_and_one_data_set(uninterrupted, tmp_path):
    other_data = open_source(SOURCE.replace("count=12", "count=14"))
    with pytest.raises(TrainingError, match="other data"):
        train(tiny(), other_data, uninterrupted.folder, progress=False)
    with pytest.raises(TrainingError, match="another configuration"):
        train(tiny(seed=1), open_source(SOURCE), uninterrupted.folder, progress=False)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(TrainingError, match="not empty"):
        train(tiny(), open_source(SOURCE), tmp_path, progress=False)
    with pytest.raises(DataError, match="less than one batch"):
        train(tiny(training={**TINY["training"], "batch_size": 64}), open_source(SOURCE), tmp_path / "new", progress=False)


def test_a_finished_run_is_not_trained_again(uninterrupted):
    again = train(tiny(), open_source(SOURCE), uninterrupted.folder, progress=False)
    assert again.finished
    assert differences(state(again.model), state(uninterrupted.model)) == 0


@pytest.mark.parametrize(
    ("first", "expected"),
    [(0, [(0, 6, 4)]), (6, [(1, 6, 4)]), (8, [(1, 4, 2), (2, 6, 4)]), (23, [(3, 1, 4)]), (24, [])],
)
def test_a_begun_epoch_is_finished_before_whole_ones(first, expected):
    assert _fits(first, 6, 4) == expected


def test_the_train_step_is_traced_once():
    model = create("semantic_retina", tiny())
    model.compile()
    data = model.dataset(open_source(SOURCE), model.config, "train", epochs=None)
    model.fit(data, epochs=3, steps_per_epoch=2, verbose=0)
    assert model.train_function.experimental_get_tracing_count() == 1


def test_equal_seeds_give_equal_models_and_no_two_layers_share_weights():
    a, b, other = (create("semantic_retina", tiny(seed=seed)) for seed in (3, 3, 4))
    assert differences([v.numpy() for v in a.variables], [v.numpy() for v in b.variables]) == 0
    kernels = [v.numpy() for v in [*a.variables, *other.variables] if re.search("kernel", v.name) and v.shape.rank == 4]
    for i, kernel in enumerate(kernels):
        for later in kernels[i + 1 :]:
            assert kernel.shape != later.shape or not np.array_equal(kernel, later)


def test_clipping_bounds_the_global_norm(tmp_path):
    model = create("semantic_retina", tiny(**{"training.clip_norm": 0.5}))
    model.compile(generator_optimizer=None, discriminator_optimizer=tf.keras.optimizers.SGD(1.0, global_clipnorm=0.5))
    before = [v.numpy() for v in model.discriminator.trainable_variables]
    model.fit(model.dataset(open_source(SOURCE), model.config, "train"), steps_per_epoch=1, verbose=0)
    moved = [v.numpy() - b for v, b in zip(model.discriminator.trainable_variables, before)]
    assert np.sqrt(sum((m**2).sum() for m in moved)) <= 0.5 + 1e-5
    assert model.generator_optimizer.global_clipnorm == 0.5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_with_float32_variables(precision):
    model = create("semantic_retina", tiny(**{"training.mixed_precision": precision}))
    model.compile()
    history = model.fit(model.dataset(open_source(SOURCE), model.config, "train"), steps_per_epoch=2, verbose=0)
    assert all(np.isfinite(values).all() for values in history.history.values())
    assert {v.dtype for v in model.trainable_variables} == {tf.float32}
    assert model.generator.blocks[0].compute_dtype == precision
    assert tf.keras.mixed_precision.global_policy().name == "float32"
