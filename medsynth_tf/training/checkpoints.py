"""Checkpoints of a run: weights, averages, optimisers, and where in which stage the run stands."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tensorflow as tf

from medsynth_tf.core.errors import NonFiniteLossError, TrainingError


class RunCheckpoint:
    """Saves and restores a run.

    Args:
        model: the method, compiled, with all its variables made.
        folder: of the run; checkpoints go to its `checkpoints/`.
        kept: newest ones that are kept.
        chief: whether this process's files count. With several workers each must take part in saving, so that the others write to
            a folder that is thrown away.
    """

    def __init__(self, model: tf.keras.Model, folder: Path, kept: int, chief: bool = True):
        self.model = model
        self.stage = tf.Variable(0, dtype=tf.int64, trainable=False, name="stage")
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")  # next step of the stage
        self._checkpoint = tf.train.Checkpoint(model=model, stage=self.stage, step=self.step)
        self._shared = folder / "checkpoints"
        self._discarded = None if chief else tempfile.TemporaryDirectory(prefix="medsynth-worker-")
        own = self._shared if self._discarded is None else Path(self._discarded.name)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(own), max_to_keep=kept)

    def position(self) -> tuple[int, int]:
        """(stage, step of that stage) to go on with."""
        return int(self.stage.numpy()), int(self.step.numpy())

    def restore(self) -> bool:
        """Goes back to the newest checkpoint; False if there is none.

        Raises:
            TrainingError: it does not fit the model.
        """
        newest = tf.train.latest_checkpoint(str(self._shared))
        if newest is None:
            return False
        try:
            self._checkpoint.restore(newest).assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise TrainingError(f"checkpoint {newest} does not fit this model: {str(error).splitlines()[0]}") from error
        return True

    def save(self, stage: int, step: int) -> None:
        """Writes a checkpoint that says: go on with `step` of `stage`.

        Raises:
            NonFiniteLossError: a variable is not finite; nothing is written, so that the last checkpoint stays a good one.
        """
        for variable in self.model.variables:
            if variable.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(variable)):
                raise NonFiniteLossError(
                    f"step {step}: variable {variable.name} is not finite; the last checkpoint is from before"
                )
        self.stage.assign(stage)
        self.step.assign(step)
        try:
            self._manager.save(checkpoint_number=stage * 10**9 + step)
        except tf.errors.OpError as error:
            raise TrainingError(f"cannot write a checkpoint to {self._shared}: {error.message.splitlines()[0]}") from error
