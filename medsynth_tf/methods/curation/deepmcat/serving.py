"""What the model answers over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from medsynth_tf.methods.curation.deepmcat.model import DeepMCAT


def signatures_of(model: DeepMCAT) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """The named signatures of a model; image is float32 [B, H, W, C] of any size, finite.

    `serving_default` and `categorize`: image → cluster int32 [B], distance float32 [B] (squared, to its centroid), label int32 [B]
    (-1: the cluster has no name). `embed`: image → embedding float32 [B, D] of length 1.
    """
    spec = tf.TensorSpec([None, None, None, model.config.input.channels], tf.float32, name="image")

    def checked(image: tf.Tensor) -> tf.Tensor:
        checks = [
            tf.debugging.assert_positive(tf.shape(image)[0], "image: the batch is empty"),
            tf.debugging.assert_positive(tf.reduce_min(tf.shape(image)[1:3]), "image: it has no pixels"),
            tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(image)), ["image: there are values that are NaN or infinite"]),
        ]
        with tf.control_dependencies(checks):  # before anything runs
            return tf.identity(image)

    def categorize(image: tf.Tensor) -> dict[str, tf.Tensor]:
        clustered = tf.debugging.assert_positive(tf.reduce_sum(model.sizes), "the model was not trained: it has no clusters")
        with tf.control_dependencies([clustered]):
            return model.assign(checked(image))

    def embed(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": model({"image": checked(image)})}

    return {
        "serving_default": tf.function(categorize, input_signature=[spec]),
        "categorize": tf.function(categorize, input_signature=[spec]),
        "embed": tf.function(embed, input_signature=[spec]),
    }
