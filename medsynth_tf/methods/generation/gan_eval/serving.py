"""What gan_eval answers over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def to_bytes(images: tf.Tensor) -> tf.Tensor:
    """[-1, 1] → uint8: (x + 1)/2, clipped to [0, 1], in 255 steps."""
    return tf.saturate_cast(tf.round(tf.clip_by_value((images + 1.0) / 2.0, 0.0, 1.0) * 255.0), tf.uint8)


def signatures(model: Any) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """`serving_default` of the model, see `GANEval.signatures`. Classes that the model was not trained on are refused."""
    config = model.config
    known = tf.constant(config.labels, tf.int64)
    names = ", ".join(map(str, config.labels))
    made = f"classes are {names}" if config.conditional else f"this model was trained on class {names} alone"

    def synthesize(seed: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        # before anything runs: kernels may not stand an empty batch
        checks = [tf.debugging.assert_positive(tf.shape(seed)[0], "seed: the batch is empty")]
        if label is not None:
            same = tf.debugging.assert_equal(tf.shape(seed)[0], tf.shape(label)[0], "seed and label differ in batch size")
            with tf.control_dependencies([same]):
                fits = tf.reduce_all(tf.reduce_any(label[:, tf.newaxis] == known, -1))
            checks += [same, tf.debugging.assert_equal(fits, True, f"label: {made}")]
        with tf.control_dependencies(checks):
            seed = tf.identity(seed)
        labels = tf.fill(tf.shape(seed), known[0]) if label is None else label
        images = to_bytes(model({"seed": seed, "label": labels}))
        return {"image": tf.ensure_shape(images, [None, *config.image_shape])}

    specs = [tf.TensorSpec([None], tf.int64, name="seed")]
    if config.classes > 1:
        specs.append(tf.TensorSpec([None], tf.int64, name="label"))
    return {"serving_default": tf.function(synthesize, input_signature=specs)}
