"""Pre-training: each encoder alone, in an auto-encoder with a decoder that is thrown away after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.divergence import map_kl
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.translation.us_style.config import USStyleConfig
from medsynth_tf.methods.translation.us_style.networks import Decoder, Encoder, StyleEncoder

Batch = dict[str, tf.Tensor]


class AutoEncoder(Optimisation, tf.keras.Model):
    """An encoder of the method, and a plain decoder with skip connections. A `StyleEncoder` makes it a variational one.

    The encoder is the method's own, so that what is learnt here is there without copying.

    Args:
        config: the method's.
        encoder: gives what is pre-trained; a function, so that Keras counts the encoder among the method's parts once.
        images: which images of a batch it learns, "content" or "style".
    """

    def __init__(self, config: USStyleConfig, encoder: Callable[[], Encoder | StyleEncoder], images: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, self.encoder, self.images = config, encoder, images
        self.distribute_reduction_method = "first"
        own, seed = config.network, layer_seed(config.seed, f"pre-training {images}")
        self.decoder = Decoder(own.filters, own.adain_site != "bottleneck", own.batch_momentum, seed, name="decoder")
        variational = isinstance(encoder(), StyleEncoder)
        self.means = {name: tf.keras.metrics.Mean(name=name) for name in ("reconstruction", *(["kl"] if variational else []))}

    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with Adam."""
        rates = self.config.optimiser
        optimizer = self.make_adam(self.config.pretraining.learning_rate, rates.beta_1, rates.beta_2)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.learning_variables)

    @property
    def learning_variables(self) -> list[tf.Variable]:
        """Of the encoder and of the decoder."""
        return self.encoder().trainable_variables + self.decoder.trainable_variables

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.means.values())

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """(images float32 [B, S, S, 1] in [0, 1], seeds int64 [B]) → their reconstructions."""
        return self._forward(*inputs, training)[0]

    def _forward(self, images: tf.Tensor, seeds: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Reconstruction, and the sum of divergences."""
        encoder = self.encoder()
        if not isinstance(encoder, StyleEncoder):
            return self.decoder(encoder(images, training=training), training=training), tf.constant(0.0)
        styles = encoder.distributions(images, training)
        features = encoder.features(encoder.sample(styles, seeds), training)
        kl = tf.add_n([map_kl(each.mean, each.deviation, self.config.losses.kl_form) for each in styles])
        return self.decoder(features, training=training), kl

    def _measured(self, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        images = tf.cast(batch[self.images], tf.float32) / 255.0
        made, kl = self._forward(images, batch["seed"], training)
        losses = {"reconstruction": tf.reduce_mean((made - images) ** 2), "kl": kl}
        return {name: losses[name] for name in self.means}

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of Adam; returns running means."""
        with tf.GradientTape() as tape:
            losses = self._measured(batch, training=True)
            objective = self.replica_loss(tf.add_n(list(losses.values())), self.optimizer)
        self.apply(self.optimizer, tape.gradient(objective, self.learning_variables), self.learning_variables)
        return recorded(self.means, losses)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The same without learning."""
        return recorded(self.means, self._measured(batch, training=False))

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Images and their reconstructions, uint8 [B, S, S, 1]."""
        images = batch[self.images]
        made = self((tf.cast(images, tf.float32) / 255.0, batch["seed"]))
        return {"image": images, "reconstruction": from_unit_range(2.0 * made - 1.0)}
