"""The best weights of a run by a validation measure, kept beside the current ones and put back at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


class BestWeights(tf.Module):
    """A copy of variables from when a score was highest. It is part of checkpoints, so that a resumed run still knows it.

    Args:
        variables: what is kept: weights, moving statistics, averages.
    """

    def __init__(self, variables: Sequence[tf.Variable]):
        super().__init__()
        self._followed = list(variables)
        self.copies = [tf.Variable(variable, trainable=False, name=f"best_{i}") for i, variable in enumerate(self._followed)]
        # far below any score, and finite, as all that is in checkpoints must be
        self.score = tf.Variable(-1e30, trainable=False, dtype=tf.float32, name="best_score")
        self.judged_epochs = tf.Variable(0, trainable=False, dtype=tf.int64, name="judged_epochs")

    def judge(self, score: float, epochs: int) -> None:
        """Keeps the weights if none before had as high a score.

        Args:
            score: of the weights as they are.
            epochs: that are done.
        """
        if score > float(self.score.numpy()):
            self.score.assign(score)
            for copy, variable in zip(self.copies, self._followed):
                copy.assign(tf.convert_to_tensor(variable))
        self.judged_epochs.assign(epochs)

    def restore(self) -> None:
        """Gives the variables their best values, if there was ever a score."""
        if int(self.judged_epochs.numpy()):
            for copy, variable in zip(self.copies, self._followed):
                variable.assign(tf.convert_to_tensor(copy))


class KeepBest(tf.keras.callbacks.Callback):
    """Judges after each epoch, and puts the best weights back after the last one.

    Args:
        best: where they are kept.
        monitor: what is judged by, the higher the better, such as `val_dice`.
        epochs: of the stage.
        evaluate: the measure of the weights as they are, for an epoch whose judging a killed run did not get to.
    """

    def __init__(self, best: BestWeights, monitor: str, epochs: int, evaluate: Callable[[], float]):
        super().__init__()
        self.best, self.monitor, self.epochs, self.evaluate = best, monitor, epochs, evaluate

    def catch_up(self, epochs_done: int) -> None:
        """To be called where a stage begins or resumes: a checkpoint may be of the end of an epoch, before it was judged."""
        if epochs_done > int(self.best.judged_epochs.numpy()):
            self._judge(self.evaluate(), epochs_done)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Judges."""
        self._judge(float((logs or {})[self.monitor]), epoch + 1)

    def _judge(self, score: float, epochs: int) -> None:
        self.best.judge(score, epochs)
        if epochs == self.epochs:
            self.best.restore()
