"""Runs that are broken off, as by a kill."""

import tensorflow as tf


class StopAfter(tf.keras.callbacks.Callback):
    """Raises KeyboardInterrupt after so many steps over all stages.

    Args:
        steps: from the start of the process.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        """Counts."""
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
