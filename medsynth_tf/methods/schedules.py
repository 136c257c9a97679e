"""Learning-rate schedules by epoch. They depend on the epoch alone, so that a resumed run goes on exactly."""

from __future__ import annotations

import math

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
