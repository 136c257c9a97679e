"""What an fbpaug model answers over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.methods.augmentation.fbpaug.data import make_layer

_EXAMPLE_SIDE = 64
THRESHOLD = 0.5


def signatures(model: Any) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """All take image float32 [B, H, W, 1] in Hounsfield units, of pixels as the model was trained on.

    `serving_default`: → probability float32 [B, H, W], mask uint8 [B, H, W] (1 where it is at least one half). `augment`: also seed
    int64 [B] → image, reconstructed with kernels that the seeds draw, and their a and b float32 [B]. `augment_with`: also a ≥ -1 and
    b > 0, float32 [B] → image.
    """
    layer = make_layer(model.config, training=False)
    images = tf.TensorSpec([None, None, None, 1], tf.float32, name="image")
    seeds = tf.TensorSpec([None], tf.int64, name="seed")
    numbers = {name: tf.TensorSpec([None], tf.float32, name=name) for name in ("a", "b")}

    def segment(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probability = tf.sigmoid(model({"image": _checked(image)}))[..., 0]
        return {"probability": probability, "mask": tf.cast(probability >= THRESHOLD, tf.uint8)}

    def augment(image: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        image = _checked(image, seed=seed)
        drawn = layer.parameters(seed)
        return {"image": layer.with_kernels(image, drawn.a, drawn.b), "a": drawn.a, "b": drawn.b}

    def augment_with(image: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        checks = [
            tf.debugging.assert_equal(
                tf.reduce_all(tf.math.is_finite(a) & (a >= -1.0)), True, "a: must be finite, at least -1"
            ),
            tf.debugging.assert_equal(tf.reduce_all(tf.math.is_finite(b) & (b > 0.0)), True, "b: must be finite, above 0"),
        ]
        with tf.control_dependencies(checks):
            return {"image": layer.with_kernels(_checked(image, a=a, b=b), a, b)}

    return {
        "serving_default": tf.function(segment, input_signature=[images]),
        "augment": tf.function(augment, input_signature=[images, seeds]),
        "augment_with": tf.function(augment_with, input_signature=[images, numbers["a"], numbers["b"]]),
    }


def _checked(image: tf.Tensor, **others: tf.Tensor) -> tf.Tensor:
    """The image, once it and the batch sizes of the others are found right; nothing runs before."""
    shape = tf.shape(image)
    checks = [
        tf.debugging.assert_positive(shape[0], "image: the batch is empty"),
        tf.debugging.assert_positive(tf.reduce_min(shape[1:3]), "image: slices have no pixels"),
        tf.debugging.assert_equal(tf.reduce_all(tf.math.is_finite(image)), True, "image: values must be finite"),
    ]
    checks += [
        tf.debugging.assert_equal(shape[0], tf.shape(other)[0], f"image and {name} differ in batch size")
        for name, other in others.items()
    ]
    with tf.control_dependencies(checks):
        return tf.identity(image)


def example_inputs() -> dict[str, dict[str, np.ndarray]]:
    """One request per signature: a disc of water in air."""
    axis = np.arange(_EXAMPLE_SIDE) - _EXAMPLE_SIDE // 2
    inside = axis[:, None] ** 2 + axis**2 < (_EXAMPLE_SIDE // 3) ** 2
    image = {"image": np.where(inside, 0.0, -1000.0).astype(np.float32)[None, ..., None]}
    return {
        "serving_default": image,
        "augment": {**image, "seed": np.zeros([1], np.int64)},
        "augment_with": {**image, "a": np.full([1], 30.0, np.float32), "b": np.full([1], 3.0, np.float32)},
    }
