"""The means over an epoch that a train or test step reports."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


def recorded(means: Mapping[str, tf.keras.metrics.Metric], values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Adds a step's values to the running means of the same names.

    Args:
        means: the model's, by name.
        values: the step's scalars; it may have more of them than there are means.

    Returns:
        The means so far, in the order of `means`.

    Raises:
        KeyError: a mean has no value.
    """
    for name, mean in means.items():
        mean.update_state(values[name])
    return {name: mean.result() for name, mean in means.items()}
