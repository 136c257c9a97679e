"""Early stopping on the training loss, with the best weights kept in the checkpoint, so that a killed run stops where it would have."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import tensorflow as tf

from medsynth_tf.core.errors import NonFiniteLossError

_RUNNING, _STALE, _BROKEN = 0, 1, 2
_NONE = float(tf.float32.max)  # no epoch has ended yet; checkpoints refuse infinity
_log = logging.getLogger(__name__)


class BestWeights(tf.Module):
    """A copy of variables as they were in the epoch with the lowest mean training loss.

    All of it happens inside the train step: losses are summed over an epoch's steps, and after the last of them the variables are
    copied if their mean is the lowest so far. Once `patience` epochs in a row were no better, or a loss was not finite, the copy
    does not change any more.

    Args:
        variables: what to copy.
        patience: epochs without a lower loss after which training should end.
        steps_per_epoch: steps of one epoch; a variable, which a stage may set.
    """

    def __init__(self, variables: Sequence[tf.Variable], patience: int, steps_per_epoch: int):
        super().__init__()
        self._followed = list(variables)
        self.patience = patience
        self.copies = [
            tf.Variable(v, trainable=False, name=f"best_{i}", aggregation=tf.VariableAggregation.MEAN)
            for i, v in enumerate(self._followed)
        ]

        def scalar(value: float, dtype: tf.DType, name: str) -> tf.Variable:
            aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
            return tf.Variable(value, trainable=False, dtype=dtype, name=name, aggregation=aggregation)

        self.steps_per_epoch = scalar(steps_per_epoch, tf.int64, "steps_per_epoch")
        self.lowest = scalar(_NONE, tf.float32, "lowest_loss")
        self.total = scalar(0.0, tf.float32, "epoch_loss")
        self.steps = scalar(0, tf.int64, "epoch_steps")
        self.stale = scalar(0, tf.int64, "epochs_without_a_lower_loss")
        self.state = scalar(_RUNNING, tf.int64, "state")

    @property
    def stopped(self) -> bool:
        """Whether training should end."""
        return int(self.state.numpy()) != _RUNNING

    @property
    def broken(self) -> bool:
        """Whether a loss was not finite."""
        return int(self.state.numpy()) == _BROKEN

    def update(self, loss: tf.Tensor) -> None:
        """One step, inside a train step and after the weights moved; `loss` is the replica's mean loss, float32 scalar."""
        tf.distribute.get_replica_context().merge_call(self._update, args=(loss,))

    def _update(self, strategy: tf.distribute.Strategy, loss: tf.Tensor) -> None:
        mean = strategy.reduce(tf.distribute.ReduceOp.MEAN, loss, axis=None)
        update = strategy.extended.update
        running = tf.equal(self.state, _RUNNING)
        total = self.total + mean
        steps = self.steps + 1
        ends = steps >= self.steps_per_epoch
        epoch_loss = total / tf.cast(steps, tf.float32)
        finite = tf.math.is_finite(total)
        better = running & ends & finite & (epoch_loss < self.lowest)
        stale = tf.where(ends, tf.where(better, tf.zeros_like(steps), self.stale + 1), self.stale)
        state = tf.where(stale >= self.patience, tf.constant(_STALE, tf.int64), tf.constant(_RUNNING, tf.int64))
        state = tf.where(finite, state, tf.constant(_BROKEN, tf.int64))

        def put(variable: tf.Variable, value: tf.Tensor) -> None:
            variable.assign(value)

        def keep(copy: tf.Variable, variable: tf.Variable, better: tf.Tensor) -> None:
            copy.assign(tf.where(better, variable, copy))

        for copy, variable in zip(self.copies, self._followed):
            update(copy, keep, args=(variable, better))
        values = {
            self.lowest.ref(): tf.where(better, epoch_loss, self.lowest),
            self.total.ref(): tf.where(ends | ~finite, 0.0, total),
            self.steps.ref(): tf.where(ends, tf.zeros_like(steps), steps),
            self.stale.ref(): tf.where(running, stale, self.stale),
            self.state.ref(): tf.where(running, state, self.state),
        }
        for reference, value in values.items():
            update(reference.deref(), put, args=(value,))

    def restore(self) -> None:
        """Gives the variables the values of the best epoch.

        Raises:
            NonFiniteLossError: no epoch had a finite loss.
        """
        if float(self.lowest.numpy()) == _NONE:
            raise NonFiniteLossError("no epoch ended with a finite training loss: there are no best weights to go back to")
        if self.broken:
            _log.warning("a training loss was not finite; the weights of the best epoch before it are restored")
        for copy, variable in zip(self.copies, self._followed):
            variable.assign(copy)


class StopWhenStale(tf.keras.callbacks.Callback):
    """Ends a fit once its best weights will not change any more.

    Args:
        best: of the model that is fitted.
    """

    def __init__(self, best: BestWeights):
        super().__init__()
        self.best = best

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Asks Keras to stop, if it is time."""
        if self.best.stopped:
            self.model.stop_training = True
