"""Variational style transfer as one Keras model: encoders, decoder, pre-training, and the ways to choose a style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.methods.stage import Stage
from medsynth_tf.methods.translation.us_style import serving
from medsynth_tf.methods.translation.us_style.autoencoders import AutoEncoder
from medsynth_tf.methods.translation.us_style.config import USStyleConfig
from medsynth_tf.methods.translation.us_style.data import batches
from medsynth_tf.methods.translation.us_style.networks import Decoder, Encoder, Gaussian, StyleEncoder, restyle
from medsynth_tf.methods.translation.us_style.objective import Objective
from medsynth_tf.ops import random

Batch = dict[str, tf.Tensor]


class USStyle(Method):
    """Repaints an image in the style of another, or in a style drawn from the latent space.

    Call it on {"content": uint8 [B, H, W, 1], "style": uint8 [B, h, w, 1], "seed": int64 [B]} for images float32 [B, H, W, 1] in
    (0, 1). H and W are multiples of 2^(scales - 1). Methods that take images take float32 ones in [0, 1], see `unit`.

    Args:
        config: its settings.
    """

    config_class = USStyleConfig
    config: USStyleConfig

    def __init__(self, config: USStyleConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        own = config.network
        common: dict[str, Any] = {"filters": own.filters, "momentum": own.batch_momentum}
        seeds = {name: layer_seed(config.seed, name) for name in ("content_encoder", "style_encoder", "decoder")}
        self.content_encoder = Encoder(**common, seed=seeds["content_encoder"], name="content_encoder")
        self.style_encoder: StyleEncoder | Encoder
        if config.style.variational:
            head, scale = own.style_head, config.style.noise_scale
            self.style_encoder = StyleEncoder(
                **common, head=head, noise_scale=scale, seed=seeds["style_encoder"], name="style_encoder"
            )
        else:
            self.style_encoder = Encoder(**common, seed=seeds["style_encoder"], name="style_encoder")
        self.decoder = Decoder(**common, skips=own.adain_site != "bottleneck", seed=seeds["decoder"], name="decoder")
        self.objective = Objective(config, name="objective")
        self.autoencoders: list[AutoEncoder] = []
        if config.pretraining.epochs:
            self.autoencoders = [
                AutoEncoder(config, lambda: self.content_encoder, "content", name="content_autoencoder"),
                AutoEncoder(config, lambda: self.style_encoder, "style", name="style_autoencoder"),
            ]
        losses = config.losses
        names = ["loss", "perceptual", "style", *(["kl"] if config.style.variational else [])]
        names += [name for name in ("reconstruction", "total_variation") if getattr(losses, name)]
        self.means = {name: tf.keras.metrics.Mean(name=name) for name in names}
        self._make_variables()
        self.built = True
        if config.training.ema_decay is not None:
            self.average = WeightAverage(self._parts("variables"), config.training.ema_decay)

    def _make_variables(self) -> None:
        image = tf.keras.Input([self.config.image_size, self.config.image_size, 1])
        seeds = tf.keras.Input([], dtype=tf.int64)
        features = self.content_encoder(image)
        if isinstance(self.style_encoder, StyleEncoder):
            features = self.style_encoder((image, seeds))
        else:
            self.style_encoder(image)
        self.decoder(features)
        for autoencoder in self.autoencoders:
            autoencoder.decoder(features)
            autoencoder.built = True

    def _parts(self, name: str) -> list[tf.Variable]:
        """Variables of the three networks."""
        return [v for part in (self.content_encoder, self.style_encoder, self.decoder) for v in getattr(part, name)]

    @property
    def network_variables(self) -> list[tf.Variable]:
        """What learns: of both encoders and the decoder."""
        return self._parts("trainable_variables")

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: USStyleConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Random pairs {"content", "style": uint8 [B, S, S, 1], "seed": int64 [B]}; see `data.batches`."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: USStyleConfig) -> RecordRequirements:
        """8-bit images; a mask, if there is one, is the content's and is handed on."""
        return RecordRequirements()

    def stages(self, source: Source) -> list[Stage]:
        """'content' and 'style', which pre-train an encoder each, and 'transfer', which trains all three networks together."""
        transfer = self.stage("transfer", source)
        stages = []
        for autoencoder in self.autoencoders:
            stages.append(
                Stage(
                    **{
                        **vars(transfer),
                        "name": autoencoder.images,
                        "model": autoencoder,
                        "epochs": self.config.pretraining.epochs,
                        "preview": autoencoder.preview,
                        "end": self._start_average,
                    }
                )
            )
        begin = (lambda: self.calibrate(source)) if self.config.perceptual.calibration_batches else None
        return [*stages, Stage(**{**vars(transfer), "begin": begin})]

    def _start_average(self) -> None:
        """Averages are of the transfer's training; they begin with the pre-trained weights."""
        if self.average is not None:
            with self.distribute_strategy.scope():
                for average, variable in zip(self.average.averages, self._parts("variables")):
                    average.assign(tf.cast(tf.identity(variable), tf.float32))

    def calibrate(self, source: Source) -> None:
        """Scales each layer's losses so that unrelated training images are at distance 1; see `Objective.calibrate`."""
        own = self.config
        pairs = self.dataset(source, own, "train", own.seed, epochs=None).take(own.perceptual.calibration_batches)
        with self.distribute_strategy.scope():
            self.objective.calibrate((self.unit(batch["content"]), self.unit(batch["style"])) for batch in pairs)

    # -- optimiser ----------------------------------------------------------------------------------------------------------
    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with Adam for all three stages; `optimizer` replaces that of the last."""
        rates = self.config.optimiser
        optimizer = self.with_loss_scale(optimizer or self.make_adam(rates.learning_rate, rates.beta_1, rates.beta_2))
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.network_variables)
        for autoencoder in self.autoencoders:
            autoencoder.compile(jit_compile=kwargs["jit_compile"])

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.means.values())

    # -- styles -------------------------------------------------------------------------------------------------------------
    @staticmethod
    def unit(images: tf.Tensor) -> tf.Tensor:
        """uint8 → float32 in [0, 1]."""
        return tf.cast(images, tf.float32) / 255.0

    def style_code(self, style: tf.Tensor) -> list[tf.Tensor]:
        """What stands for a style: of each scale μ_i (the deterministic method's: the features), float32 [B, h_i, w_i, C_i]."""
        if isinstance(self.style_encoder, StyleEncoder):
            return [each.mean for each in self.style_encoder.distributions(style)]
        return [tf.cast(features, tf.float32) for features in self.style_encoder(style)]

    def decode(self, content: tf.Tensor, latents: Sequence[tf.Tensor]) -> tf.Tensor:
        """The content in the style of z_i, one map a scale, of any size in space: [B, H, W, 1] in (0, 1)."""
        features = self.style_encoder.features(latents) if isinstance(self.style_encoder, StyleEncoder) else latents
        return restyle(self.decoder, self.content_encoder(content), features, self.config.network.adain_site)

    def transfer(self, content: tf.Tensor, style: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """The content in the style of an image, with noise by `seeds` int64 [B], as in training."""
        return self._forward(content, style, seeds, training=False)[0]

    def interpolate(self, content: tf.Tensor, first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        """z_i = a μ_i(first) + (1 - a) μ_i(second); a < 0 and a > 1 extrapolate.

        Args:
            content, first, second: images; the two styles are of one size.
            share: a, float32 [B].
        """
        share = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
        codes = zip(self.style_code(first), self.style_code(second))
        return self.decode(content, [share * a + (1.0 - share) * b for a, b in codes])

    def from_prior(self, content: tf.Tensor, seeds: tf.Tensor, coherent: tf.Tensor | bool = True) -> tf.Tensor:
        """z_i ~ N(0, 1), of the variational method alone.

        Args:
            content: images.
            seeds: int64 [B].
            coherent: bool, of all or [B]: one number a channel, which spans the latent space; else one a pixel, which averages out, so
                that all draws look nearly alike.
        """
        chosen = tf.broadcast_to(coherent, tf.shape(seeds))[:, tf.newaxis, tf.newaxis, tf.newaxis]
        latents = []
        for scale, (height, width, channels) in enumerate(self._sizes(content)):
            iid = random.normal_maps(seeds, height, width, channels, f"prior {scale}")
            values = random.normal(seeds, (channels,), f"coherent prior {scale}")[:, tf.newaxis, tf.newaxis]
            latents.append(tf.where(chosen, values, iid))
        return self.decode(content, latents)

    def shift(self, content: tf.Tensor, style: tf.Tensor, amount: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
        """z_i = μ_i + k σ_i on chosen scales, μ_i on the others. The variational method alone has σ_i.

        Args:
            content, style: images.
            amount: k, float32 [B]; the paper's range is [-1, 1].
            scales: bool [B, number of scales], finest first.
        """
        assert isinstance(self.style_encoder, StyleEncoder)
        chosen = amount[:, tf.newaxis] * tf.cast(scales, tf.float32)
        latents = [
            each.mean + chosen[:, i, tf.newaxis, tf.newaxis, tf.newaxis] * each.deviation
            for i, each in enumerate(self.style_encoder.distributions(style))
        ]
        return self.decode(content, latents)

    def constant(self, content: tf.Tensor, value: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
        """z_i = p everywhere on chosen scales, 0, the prior's mean, on the others.

        Args:
            content: images.
            value: p, float32 [B].
            scales: bool [B, number of scales], finest first.
        """
        chosen = value[:, tf.newaxis] * tf.cast(scales, tf.float32)
        latents = [
            tf.tile(chosen[:, i, tf.newaxis, tf.newaxis, tf.newaxis], [1, *size]) for i, size in enumerate(self._sizes(content))
        ]
        return self.decode(content, latents)

    def _sizes(self, content: tf.Tensor) -> list[tuple[Any, Any, int]]:
        """(height, width, channels) of the latent maps of a style of the content's size."""
        shape = tf.shape(content)
        return [(shape[1] // 2**i, shape[2] // 2**i, width) for i, width in enumerate(self.config.network.filters)]

    # -- forward and steps --------------------------------------------------------------------------------------------------
    def _forward(
        self, content: tf.Tensor, style: tf.Tensor, seeds: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, list[Gaussian]]:
        """The restyled images, and the distributions of the style."""
        features = self.content_encoder(content, training=training)
        styles: list[Gaussian] = []
        if isinstance(self.style_encoder, StyleEncoder):
            styles = self.style_encoder.distributions(style, training)
            styled = self.style_encoder.features(self.style_encoder.sample(styles, seeds), training)
        else:
            styled = self.style_encoder(style, training=training)
        return restyle(self.decoder, features, styled, self.config.network.adain_site, training), styles

    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Images float32 [B, H, W, 1] in (0, 1)."""
        return self._forward(self.unit(inputs["content"]), self.unit(inputs["style"]), inputs["seed"], training)[0]

    def _measured(self, batch: Batch, training: bool) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        content, style = self.unit(batch["content"]), self.unit(batch["style"])
        made, styles = self._forward(content, style, batch["seed"], training)
        total, parts = self.objective(content, style, made, styles)
        return total, {"loss": total, **parts}

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of Adam on all three networks; returns running means."""
        with tf.GradientTape() as tape:
            total, losses = self._measured(batch, training=True)
            objective = self.replica_loss(total, self.optimizer)
        self.apply(self.optimizer, tape.gradient(objective, self.network_variables), self.network_variables)
        if self.average is not None:
            self.average.update()
        return recorded(self.means, losses)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The same without learning."""
        return recorded(self.means, self._measured(batch, training=False)[1])

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """See `serving.signatures`."""
        return serving.signatures(self)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature."""
        return serving.example_inputs(self.config)

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Contents, styles, contents in those styles and, of the variational method, in styles of the prior; uint8 [B, S, S, 1]."""
        with self.averaged_weights():
            pictures = {"content": batch["content"], "style": batch["style"], "synthetic": to_bytes(self(batch))}
            if self.config.style.variational:
                pictures["style of the prior"] = to_bytes(self.from_prior(self.unit(batch["content"]), batch["seed"]))
        return pictures


def to_bytes(images: tf.Tensor) -> tf.Tensor:
    """float in [0, 1] → uint8."""
    return from_unit_range(2.0 * images - 1.0)
