"""What the network is trained on: content and style by a fixed network's features, and the divergence of the style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.losses.divergence import map_kl
from medsynth_tf.losses.style import content_distance, gram_distance, moment_distance
from medsynth_tf.methods.translation.us_style.config import USStyleConfig
from medsynth_tf.methods.translation.us_style.networks import Gaussian
from medsynth_tf.networks.vgg_features import VGG16Features


class Objective(tf.keras.layers.Layer):
    """The weighted losses, and the fixed network.

    Args:
        config: the method's.
    """

    def __init__(self, config: USStyleConfig, **kwargs: Any):
        super().__init__(dtype=tf.float32, **kwargs)
        own, self.losses_config = config.perceptual, config.losses
        self.style_distance = gram_distance if config.losses.style_form == "gram" else moment_distance
        weights = zip(config.losses.perceptual, config.losses.style)
        blocks = [block for block, both in enumerate(weights) if any(both)]  # others are not computed
        self.network = VGG16Features(blocks, own.weights, own.filters, own.pooling, own.input_size, name="vgg16")
        self.content_weights = [config.losses.perceptual[block] for block in blocks]
        self.style_weights = [config.losses.style[block] for block in blocks]
        one = {"shape": [len(blocks)], "initializer": "ones", "trainable": False}
        self.content_scale = self.add_weight(name="content_scale", **one)
        self.style_scale = self.add_weight(name="style_scale", **one)
        self.trainable = False

    def distances(
        self, content: Sequence[tf.Tensor], style: Sequence[tf.Tensor], made: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Of each layer, the batch's mean distance from the content and from the style, scalars; 0 where the weight is."""
        zero = tf.constant(0.0)
        to_content = [
            tf.reduce_mean(content_distance(c, m)) if weight else zero
            for weight, c, m in zip(self.content_weights, content, made)
        ]
        to_style = [
            tf.reduce_mean(self.style_distance(s, m)) if weight else zero
            for weight, s, m in zip(self.style_weights, style, made)
        ]
        return to_content, to_style

    def call(
        self, content: tf.Tensor, style: tf.Tensor, made: tf.Tensor, styles: Sequence[Gaussian]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """What is minimised, and its parts before weighting (those of several layers weighted), float32 scalars.

        Args:
            content, style, made: images [B, H, W, 1] in [0, 1].
            styles: distributions of the style; none for the deterministic method.
        """
        own = self.losses_config
        both = self.network(tf.concat([content, style], 0))
        halves = [tf.split(features, 2) for features in both]
        to_content, to_style = self.distances([h[0] for h in halves], [h[1] for h in halves], self.network(made))
        parts = {
            "perceptual": _weighted(self.content_weights, to_content, self.content_scale),
            "style": _weighted(self.style_weights, to_style, self.style_scale),
        }
        total = parts["perceptual"] + parts["style"]
        others = {}
        if styles:
            others["kl"] = tf.add_n([map_kl(each.mean, each.deviation, own.kl_form) for each in styles])
        if own.reconstruction:
            others["reconstruction"] = tf.reduce_mean((made - content) ** 2)
        if own.total_variation:
            pixels = tf.cast(tf.shape(made)[1] * tf.shape(made)[2], tf.float32)
            others["total_variation"] = tf.reduce_mean(tf.image.total_variation(made)) / pixels
        for name, loss in others.items():
            total += getattr(own, name) * loss
        return total, parts | others

    def calibrate(self, pairs: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> None:
        """Sets each layer's scale to its mean distance between the two images of a pair, which are unrelated, so that such a pair would
        have the loss 1 in every layer.

        Args:
            pairs: batches of content and style images, each [B, H, W, 1] in [0, 1].
        """

        @tf.function(reduce_retracing=True)
        def measure(content: tf.Tensor, style: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            features, others = self.network(content), self.network(style)
            to_content, to_style = self.distances(features, features, others)
            return tf.stack(to_content), tf.stack(to_style)

        found = [measure(content, style) for content, style in pairs]
        for variable, values in ((self.content_scale, [f[0] for f in found]), (self.style_scale, [f[1] for f in found])):
            mean = tf.add_n(values) / len(values)
            variable.assign(tf.where(mean > 0.0, mean, 1.0))


def _weighted(weights: Sequence[float], distances: Sequence[tf.Tensor], scale: tf.Tensor) -> tf.Tensor:
    """Σ w_i d_i / s_i."""
    return tf.reduce_sum(tf.constant(weights) * tf.stack(distances) / scale)
