"""The mean of the vectors of each class, as they go by."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class RunningClassMean(tf.keras.layers.Layer):
    """mean[c] ← decay · mean[c] + (1 - decay) · (mean of the batch's vectors of class c), for the classes that the batch has.

    Call it on classes int [B] for their means, float32 [B, N]; they start at 0. A batch is that of all replicas together.

    Args:
        classes: how many.
        size: N.
        decay: in (0, 1).
    """

    def __init__(self, classes: int, size: int, decay: float = 0.995, **kwargs: Any):
        super().__init__(**{"trainable": False, "dtype": tf.float32, **kwargs})
        self.classes, self.size, self.decay = classes, size, decay
        self.means = self.add_weight(
            name="means",
            shape=[classes, size],
            initializer="zeros",
            trainable=False,
            # every replica moves its own copy by the same amount
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.built = True

    def observe(self, vectors: tf.Tensor, label: tf.Tensor) -> None:
        """Adds vectors [B, N] of classes int [B]; in a train step, on all replicas at once."""
        vectors = tf.stop_gradient(tf.cast(vectors, tf.float32))
        counted = tf.concat([vectors, tf.ones_like(vectors[:, :1])], -1)  # sums and counts in one exchange
        sums = tf.math.unsorted_segment_sum(counted, label, self.classes)
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        count = sums[:, -1:]
        means = tf.convert_to_tensor(self.means)
        change = (1.0 - self.decay) * (sums[:, :-1] / tf.maximum(count, 1.0) - means)
        self.means.assign(tf.where(count > 0.0, means + change, means))

    def call(self, label: tf.Tensor) -> tf.Tensor:
        """Classes int [B] → their means so far, float32 [B, N]."""
        return tf.gather(self.means, label)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "classes": self.classes, "size": self.size, "decay": self.decay}
