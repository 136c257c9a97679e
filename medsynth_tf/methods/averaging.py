"""Exponential moving average of weights, which generators are sampled with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


class WeightAverage(tf.Module):
    """average ← decay · average + (1 - decay) · weight, after each step; starts at the weights themselves.

    Args:
        variables: the weights to follow, and the moving statistics of their batch norms: averaged weights need statistics of
            the same stretch of training, not of its last few small batches.
        decay: in (0, 1).
        warmup: for this many steps the average is a copy of the weights; only then is it an average.
        ramp: τ, with which the decay of step n is decay · (1 - e^(-n/τ)); None: the same decay in all steps.
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float, warmup: int = 0, ramp: int | None = None):
        super().__init__()
        self.decay = decay
        self.warmup = warmup
        self.ramp = ramp
        if warmup or ramp:
            self.updates = tf.Variable(
                0,
                trainable=False,
                dtype=tf.int64,
                name="average_updates",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        self._followed = list(variables)
        self.averages = [
            tf.Variable(tf.cast(v, tf.float32), trainable=False, name=f"average_{i}", aggregation=tf.VariableAggregation.MEAN)
            for i, v in enumerate(self._followed)
        ]

    def update(self) -> None:
        """One step, inside a train step and after the weights moved."""
        # all averages in one meeting of the replicas, which costs a walk over the graph each time
        tf.distribute.get_replica_context().merge_call(self._update)

    def _update(self, strategy: tf.distribute.Strategy) -> None:
        share = tf.constant(1.0 - self.decay, tf.float32)
        if self.ramp:
            share = 1.0 - self.decay * (1.0 - tf.exp(-tf.cast(self.updates + 1, tf.float32) / self.ramp))
        if self.warmup:
            share = tf.where(self.updates < self.warmup, 1.0, share)
        if self.warmup or self.ramp:
            strategy.extended.update(self.updates, lambda updates: updates.assign_add(1))

        def move(average: tf.Variable, variable: tf.Variable, share: tf.Tensor) -> None:
            average.assign_add(share * (tf.cast(variable, tf.float32) - average))

        for average, variable in zip(self.averages, self._followed):
            strategy.extended.update(average, move, args=(variable, share))

    def swap(self) -> None:
        """Exchanges weights and averages."""
        for average, variable in zip(self.averages, self._followed):
            weight = tf.identity(variable)
            variable.assign(average)
            average.assign(weight)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
