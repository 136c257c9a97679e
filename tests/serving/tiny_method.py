"""A method small enough to export in a second: label maps become noisy colours, one colour per label."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow as tf

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.settings import setting


@dataclasses.dataclass(frozen=True)
class TinyConfig(MethodConfig):
    slug: ClassVar[str] = "tiny"

    labels: int = setting(4, help="label values 0 … labels-1", minimum=2, maximum=255)
    image_size: int = setting(8, help="side in pixels", minimum=4)
    brightness: float = setting(1.0, help="factor on the colours", minimum=0.0, maximum=1.0)


class TinyMethod(tf.keras.Model):
    """`serving_default`: label_map, seed → image; `spin`: work that takes as long as asked, to test deadlines."""

    def __init__(self, config: TinyConfig | None = None):
        super().__init__()
        self.config = config or TinyConfig()
        colours = np.random.default_rng(self.config.seed).uniform(50, 200, (self.config.labels, 3)) * self.config.brightness
        self.colours = tf.Variable(colours.astype(np.float32), name="colours")
        self.unused = tf.Variable(np.zeros((4096, 64), np.float32), name="not_in_any_signature")

    def call(self, label_map: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        def noise(one_seed: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_normal(tf.concat([tf.shape(label_map)[1:], [3]], 0), tf.stack([one_seed, 7]), stddev=8.0)

        image = tf.gather(self.colours, tf.cast(label_map, tf.int32))
        image += tf.map_fn(noise, seed, fn_output_signature=tf.TensorSpec([None, None, 3], tf.float32))
        return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)

    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        side = self.config.image_size

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, side, side], tf.uint8, name="label_map"),
                tf.TensorSpec([None], tf.int64, name="seed"),
            ]
        )
        def serving_default(label_map: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            in_range = tf.debugging.assert_less(
                label_map,
                tf.constant(self.config.labels, tf.uint8),
                message=f"label_map: labels are 0 to {self.config.labels - 1}",
            )
            with tf.control_dependencies([in_range]):  # else the look-up of the colour may be the first to fail
                label_map = tf.identity(label_map)
            image = self(label_map, seed)
            return {"image": image, "mean": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2, 3])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="steps")])
        def spin(steps: tf.Tensor) -> dict[str, tf.Tensor]:
            def body(i: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                return i + 1, tf.linalg.matmul(x, x) / tf.reduce_max(tf.abs(x))

            x = tf.random.stateless_uniform([64, 64], [0, 0]) + tf.eye(64)
            _, x = tf.while_loop(lambda i, x: i < tf.reduce_max(steps), body, [0, x])
            return {"steps_done": steps + tf.cast(x[0, 0] * 0.0, tf.int32)}

        return {"serving_default": serving_default, "spin": spin}

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        side = self.config.image_size
        return {
            "serving_default": {"label_map": np.zeros((1, side, side), np.uint8), "seed": np.zeros(1, np.int64)},
            "spin": {"steps": np.ones(1, np.int32)},
        }
