"""Noise added to feature maps, each channel with a strength of its own."""

from __future__ import annotations

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class NoiseInjection(tf.keras.layers.Layer):
    """x + s · noise, s learned for each channel and 0 at first; all channels get the same noise.

    Source: Karras et al., StyleGAN (arXiv:1812.04948, section 2 and appendix C). The noise is an input, so that it can depend on
    the sample's seed alone.
    """

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Makes s, float32 [C], for shapes (x [B, H, W, C], noise [B, H, W, 1])."""
        channels = tf.TensorShape(input_shape[0])[-1]
        self.strength = self.add_weight(name="strength", shape=[channels], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """(x [B, H, W, C], noise [B, H, W, 1]) → [B, H, W, C] in x's dtype."""
        x, noise = inputs
        return x + tf.cast(self.strength, x.dtype) * tf.cast(noise, x.dtype)

    def compute_output_shape(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> tf.TensorShape:
        """x's."""
        return tf.TensorShape(input_shape[0])
