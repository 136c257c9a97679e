"""Runs a method's stages in a run folder, from wherever the last run of that folder stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from medsynth_tf.core import registry
from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import TrainingError
from medsynth_tf.core.files import write_text
from medsynth_tf.data.source import Source
from medsynth_tf.methods.replicas import evenly
from medsynth_tf.methods.saving import create
from medsynth_tf.methods.stage import Stage
from medsynth_tf.training.callbacks import Checkpointing, FiniteLossGuard, History, Interrupted, Pictures, ProgressBar
from medsynth_tf.training.checkpoints import RunCheckpoint
from medsynth_tf.training.strategies import is_chief, make_strategy
from medsynth_tf.version import __version__


@dataclasses.dataclass(frozen=True)
class Run:
    """What training leaves behind."""

    model: Any
    folder: Path
    finished: bool
    """False if the run was interrupted; calling `train` with the same folder goes on."""


def train(
    config: MethodConfig,
    source: Source,
    folder: str | Path,
    *,
    restart: bool = False,
    progress: bool = True,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> Run:
    """Trains a method through all its stages.

    The folder gets `config.yaml`, `run.json` (data, version), `checkpoints/`, `log.csv`, `tensorboard/`, `pictures/` and, at the end,
    `model/`, which `medsynth_tf.load` reads. If it holds an unfinished run of the same configuration, that run goes on from its last
    checkpoint and ends with the weights that an uninterrupted one would have had.

    Args:
        config: the method's configuration.
        source: the records.
        folder: of the run.
        restart: throw away what the folder holds of an earlier run.
        progress: show a progress bar.
        callbacks: further Keras callbacks, for each stage.

    Raises:
        TrainingError: the folder belongs to another configuration or other data, or the batch does not divide by the replicas.
        NonFiniteLossError: a loss broke.
    """
    folder = Path(folder)
    strategy = make_strategy(config.training)
    chief = is_chief(strategy)
    _claim_folder(folder, config, source, restart, chief)
    with strategy.scope():
        model = create(config.slug, config)
        model.compile()
        stages = model.stages(source)
        checkpoint = RunCheckpoint(model, folder, config.training.checkpoints_kept, chief)
        checkpoint.restore()
    for number in range(checkpoint.position()[0], len(stages)):
        finished = _run_stage(stages[number], number, model, checkpoint, folder, progress and chief, chief, list(callbacks))
        if not finished:
            return Run(model, folder, finished=False)
        end, report = stages[number].end, stages[number].report
        if end is not None:
            end()
        if report is not None and chief:
            report(folder)
        checkpoint.save(number + 1, 0)
    _save(model, folder / "model", chief)
    return Run(model, folder, finished=True)


def _save(model: Any, path: Path, chief: bool) -> None:
    """Saves the model; workers other than the chief take part, since reading some variables is a meeting of all, and throw it away."""
    if chief:
        model.save(path)
        return
    with tempfile.TemporaryDirectory(prefix="medsynth-worker-") as discarded:
        model.save(Path(discarded) / "model")


def _claim_folder(folder: Path, config: MethodConfig, source: Source, restart: bool, chief: bool) -> None:
    """Makes the run folder, or checks that the run in it is this one."""
    description = {"method": config.slug, "data": source.fingerprint(), "version": __version__}
    earlier = folder / "run.json"
    if restart and chief:
        shutil.rmtree(folder, ignore_errors=True)
    if earlier.is_file():
        known = json.loads(earlier.read_text())
        if known["data"] != description["data"]:
            raise TrainingError(f"{folder} holds a run on other data; choose another folder or restart it (--restart)")
        if registry.load_any_config(folder / "config.yaml") != config:
            raise TrainingError(
                f"{folder} holds a run with another configuration; choose another folder or restart it (--restart)"
            )
    elif chief:
        if folder.exists() and any(folder.iterdir()):
            raise TrainingError(f"{folder} is not empty and holds no run; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        config.to_yaml(folder / "config.yaml")
        write_text(earlier, json.dumps(description, indent=2))


def _run_stage(
    stage: Stage,
    number: int,
    model: Any,
    checkpoint: RunCheckpoint,
    folder: Path,
    progress: bool,
    chief: bool,
    callbacks: list[tf.keras.callbacks.Callback],
) -> bool:
    """Fits one stage from the checkpoint's step on; False if it was interrupted."""
    training, replicas = model.config.training, model.distribute_strategy.num_replicas_in_sync
    _, first = checkpoint.position()
    if stage.begin is not None:
        stage.begin()
    saving = Checkpointing(first, checkpoint, number, training.checkpoint_steps)
    own: list[tf.keras.callbacks.Callback] = [FiniteLossGuard(first), saving]
    bar = ProgressBar(first, stage.steps, stage.name) if progress else None
    look_at = stage.validation or (lambda: stage.batches(0))
    grids = folder if chief else None  # every worker draws, since reading some variables is a meeting of all; one writes
    preview = stage.preview or model.preview
    own.append(Pictures(first, grids, stage.name, lambda: next(iter(look_at())), preview, training.image_steps, stage.steps))
    if chief:
        own.append(History(first, folder, stage.name))
    if bar is not None:
        own.append(bar)
    try:
        for epoch, steps, last_epoch in _fits(first, stage.steps_per_epoch, stage.epochs):
            begin_step = epoch * stage.steps_per_epoch + (stage.steps_per_epoch - steps)
            stage.model.fit(
                _sharded_by_example(stage.batches(begin_step)),
                initial_epoch=epoch,
                epochs=last_epoch,
                steps_per_epoch=steps,
                validation_data=_sharded_by_example(evenly(stage.validation(), replicas)) if stage.validation else None,
                callbacks=[*own, *stage.callbacks, *callbacks],
                verbose=0,
            )
    except Interrupted:
        return False
    finally:
        saving.release_signals()
        if bar is not None:
            bar.close()
    return True


def _fits(first_step: int, steps_per_epoch: int, epochs: int) -> list[tuple[int, int, int]]:
    """(first epoch, steps of an epoch, epoch to stop before) of each `fit` call: the rest of a begun epoch, then whole epochs."""
    epoch, done = divmod(first_step, steps_per_epoch)
    fits = []
    if done:
        fits.append((epoch, steps_per_epoch - done, epoch + 1))
        epoch += 1
    if epoch < epochs:
        fits.append((epoch, steps_per_epoch, epochs))
    return fits


def _sharded_by_example(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """With several workers each reads the whole stream and takes its share, so that a step's global batch stays the same."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
