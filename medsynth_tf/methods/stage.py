"""A method's training as a list of named stages, each of which is one `fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Attributes:
        name: unique within the method; stands in logs, checkpoints and folders.
        model: what is fitted: the method itself or a part of it that is a Keras model with a train step of its own.
        epochs: how many.
        steps_per_epoch: train steps that count as one epoch.
        batches: first step → the batches from that step on, so that a resumed run sees what the killed one would have seen.
        validation: the validation batches of one pass, or None.
        begin: run before the stage starts or resumes, for example to freeze variables.
        callbacks: Keras callbacks that the stage's schedule needs.
        preview: pictures of a validation batch while the stage trains, as `Method.preview`, which it replaces; None: that one.
        end: run after the last step and before the checkpoint that closes the stage, for example to go back to the best weights.
        report: run after `end`, with the run's folder: writes there what the stage found.
    """

    name: str
    model: tf.keras.Model
    epochs: int
    steps_per_epoch: int
    batches: Callable[[int], tf.data.Dataset]
    validation: Callable[[], tf.data.Dataset] | None = None
    begin: Callable[[], None] | None = None
    callbacks: Sequence[tf.keras.callbacks.Callback] = ()
    preview: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None
    end: Callable[[], None] | None = None
    report: Callable[[Path], None] | None = None

    @property
    def steps(self) -> int:
        """Train steps of the whole stage."""
        return self.epochs * self.steps_per_epoch
