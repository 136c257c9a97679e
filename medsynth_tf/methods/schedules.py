"""Learning-rate schedules by epoch or step. They depend on it alone, so that a resumed run goes on exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf


class LinearDecay(tf.keras.callbacks.Callback):
    """Learning rates constant, then falling linearly to zero over the last `decay_epochs` (pix2pixHD, SPADE).

    Args:
        optimizers: with the learning rate each starts from.
        epochs: of the whole stage, the decaying ones included.
        decay_epochs: how many decay.
    """

    def __init__(self, optimizers: list[tuple[tf.keras.optimizers.Optimizer, float]], epochs: int, decay_epochs: int):
        super().__init__()
        self.optimizers, self.epochs, self.decay_epochs = optimizers, epochs, decay_epochs

    def factor(self, epoch: int) -> float:
        """Share of the first learning rate that epoch 0, 1, … trains with."""
        constant = self.epochs - self.decay_epochs
        if epoch < constant:
            return 1.0
        return 1.0 - (epoch - constant + 1) / (self.decay_epochs + 1)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch's learning rates."""
        for optimizer, start in self.optimizers:
            optimizer.learning_rate.assign(start * self.factor(epoch))


class CosineDecay(tf.keras.callbacks.Callback):
    """A learning rate that falls from its start to zero along half a cosine, epoch by epoch (Loshchilov and Hutter,
    arXiv:1608.03983, without restarts).

    Args:
        optimizer: whose rate.
        start: in epoch 0.
        epochs: of the whole stage.
    """

    def __init__(self, optimizer: tf.keras.optimizers.Optimizer, start: float, epochs: int):
        super().__init__()
        self.optimizer, self.start, self.epochs = optimizer, start, epochs

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch's learning rate."""
        self.optimizer.learning_rate.assign(self.start * 0.5 * (1.0 + math.cos(math.pi * epoch / self.epochs)))


class WarmupCosine(tf.keras.callbacks.Callback):
    """A learning rate that grows linearly over the first epochs to its start value, then falls to zero along half a cosine.

    Args:
        optimizer: whose rate.
        start: the largest rate, in epoch `warmup`.
        epochs: of the whole stage.
        warmup: epochs of growth.
        skip_zero: begin at start / warmup instead of 0.
    """

    def __init__(
        self, optimizer: tf.keras.optimizers.Optimizer, start: float, epochs: int, warmup: int, skip_zero: bool = False
    ):
        super().__init__()
        self.optimizer, self.start, self.epochs, self.warmup, self.skip_zero = optimizer, start, epochs, warmup, skip_zero

    def factor(self, epoch: float) -> float:
        """Share of the largest rate that an epoch trains with."""
        if epoch <= self.warmup:
            return max(epoch, 1 if self.skip_zero else 0) / self.warmup
        return 0.5 * (1.0 + math.cos(math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch's learning rate."""
        self.optimizer.learning_rate.assign(self.start * self.factor(epoch))


class LinearWarmup(tf.keras.callbacks.Callback):
    """Rates that go linearly from a start of their own to the schedule's over the first steps, with momentum rising beside them.

    Args:
        optimizers: of one number of steps, each with the rate that it starts from; the first one's count of steps is read. Their
            `momentum` is a variable.
        rate: the schedule's at factor 1.
        warmup: steps; 0: none.
        factor: step → share of `rate`.
        momentum: at the first step, and after warm-up.
    """

    def __init__(
        self,
        optimizers: list[tuple[tf.keras.optimizers.Optimizer, float]],
        rate: float,
        warmup: int,
        factor: Callable[[int], float],
        momentum: tuple[float, float],
    ):
        super().__init__()
        self.optimizers, self.rate, self.warmup, self.factor, self.momentum = optimizers, rate, warmup, factor, momentum

    def values(self, step: int, start: float) -> tuple[float, float]:
        """Rate and momentum of a step, for an optimiser that starts from the rate `start`."""
        share = min(step / self.warmup, 1.0) if self.warmup else 1.0
        return (
            start + share * (self.rate * self.factor(step) - start),
            self.momentum[0] + share * (self.momentum[1] - self.momentum[0]),
        )

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets the step's rates and momenta."""
        step = int(self.optimizers[0][0].iterations.numpy())
        for optimizer, start in self.optimizers:
            rate, momentum = self.values(step, start)
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner.learning_rate.assign(rate)
            inner.momentum.assign(momentum)
