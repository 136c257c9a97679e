"""What a tvps model answers over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig


def _needs_vessels(config: TVPSConfig) -> bool:
    """Whether a request must bring vessel maps, since the model has no way to make them."""
    return config.translates and config.vessels.source == "mask"


def signatures(model: Any) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """`serving_default`: image uint8 [B, S, S, C], seed int64 [B] → image, the composition, and mask uint8 [B, S, S], 0 where it is
    synthetic. `fill`: the same with mask uint8 [B, S, S] (0 or 1) and component int64 [B] (-1 draws one). `most_likely`: as
    serving_default, by the likeliest Gaussian's mean. `classify`: image → probabilities [B, K], label int64 [B].

    Where vessel maps come from record masks, all but `classify` also take vessels uint8 [B, S, S]. A baseline only classifies: its
    `serving_default` is `classify`.
    """
    config: TVPSConfig = model.config
    size, channels, components = config.image_size, config.channels, config.generator.components
    images = tf.TensorSpec([None, size, size, channels], tf.uint8, name="image")
    seeds = tf.TensorSpec([None], tf.int64, name="seed")
    masks = tf.TensorSpec([None, size, size], tf.uint8, name="mask")
    numbers = tf.TensorSpec([None], tf.int64, name="component")
    maps = tf.TensorSpec([None, size, size], tf.uint8, name="vessels")

    def check_batch(image: tf.Tensor, **others: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(image)[0]
        checks = [tf.debugging.assert_positive(batch, "image: the batch is empty")]
        for name, other in others.items():
            checks.append(tf.debugging.assert_equal(batch, tf.shape(other)[0], f"image and {name} differ in batch size"))
        with tf.control_dependencies(checks):  # before anything runs
            return tf.identity(image)

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        image = check_batch(image)
        probabilities = tf.nn.softmax(model.logits(image))
        return {"probabilities": probabilities, "label": tf.argmax(probabilities, -1)}

    classified = tf.function(classify, input_signature=[images])
    if not config.synthesises:
        return {"serving_default": classified, "classify": classified}

    def answer(image: tf.Tensor, seed: tf.Tensor, vessels: tf.Tensor | None, **options: Any) -> dict[str, tf.Tensor]:
        batch = {"image": image, "seed": seed}
        if vessels is not None:
            batch["vessels"] = vessels
        batch = {**batch, "image": check_batch(**batch)}
        made = model.synthesize(batch, **options)
        return {"image": from_unit_range(made["image"][:, 0]), "mask": tf.cast(made["mask"][:, 0], tf.uint8)}

    def synthesize(image: tf.Tensor, seed: tf.Tensor, vessels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return answer(image, seed, vessels)

    def most_likely(image: tf.Tensor, seed: tf.Tensor, vessels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return answer(image, seed, vessels, most_likely=True)

    def fill(
        image: tf.Tensor, seed: tf.Tensor, mask: tf.Tensor, component: tf.Tensor, vessels: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        image = check_batch(image, mask=mask, component=component)
        tf.debugging.assert_less_equal(mask, tf.constant(1, tf.uint8), "mask: values must be 0 (made anew) or 1 (kept)")
        allowed = f"component: must be -1 (drawn) or 0 … {components - 1}"
        tf.debugging.assert_greater_equal(component, tf.constant(-1, tf.int64), allowed)
        tf.debugging.assert_less(component, tf.constant(components, tf.int64), allowed)
        return answer(image, seed, vessels, mask=mask, component=component)

    extra = [maps] if _needs_vessels(config) else []
    return {
        "serving_default": tf.function(synthesize, input_signature=[images, seeds, *extra]),
        "fill": tf.function(fill, input_signature=[images, seeds, masks, numbers, *extra]),
        "most_likely": tf.function(most_likely, input_signature=[images, seeds, *extra]),
        "classify": classified,
    }


def example_inputs(config: TVPSConfig) -> dict[str, dict[str, np.ndarray]]:
    """One request per signature: a grey image, a hole in its middle."""
    size = config.image_size
    classify = {"image": np.full([1, size, size, config.channels], 128, np.uint8)}
    if not config.synthesises:
        return {"serving_default": classify, "classify": classify}
    common: dict[str, np.ndarray] = {**classify, "seed": np.zeros([1], np.int64)}
    if _needs_vessels(config):
        common["vessels"] = np.zeros([1, size, size], np.uint8)
    mask = np.ones([1, size, size], np.uint8)
    mask[:, size // 4 : size // 2, size // 4 : size // 2] = 0
    filling = {**common, "mask": mask, "component": np.full([1], -1, np.int64)}
    return {"serving_default": common, "fill": filling, "most_likely": common, "classify": classify}
