"""From an image to its composition with a synthetic part: holes, latent vectors, decoding, translation."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from medsynth_tf.layers.mixture_latent import MixtureParameters, sample_latent
from medsynth_tf.losses.divergence import mixture_kl, mixture_kl_reference
from medsynth_tf.methods.augmentation.tvps.config import MaskConfig, TVPSConfig
from medsynth_tf.methods.augmentation.tvps.networks import PartialDecoder, PartialEncoder
from medsynth_tf.ops.patch_masks import centre_hole, square_holes, stroke_holes

DARK = 10  # of 255: image values up to this are outside the retina


@dataclasses.dataclass(frozen=True)
class Holes:
    """Which part of each image is made anew.

    Attributes:
        keep: float32 [B, S, S, 1], 1 where the composition keeps the image.
        visible: the same for what the encoder sees.
    """

    keep: tf.Tensor
    visible: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Generated:
    """What the generator makes of masked maps.

    Attributes:
        raw: the decoder's output [B, S, S, C]: logits of vessel maps, or image values.
        component: ω, float32 [B, K].
        mixture: that of the masked map.
        kl_component: part of the divergence, float32 [B]; zeros without a posterior.
        kl_gaussian: the other part.
        kl: what is minimised, float32 scalar.
    """

    raw: tf.Tensor
    component: tf.Tensor
    mixture: MixtureParameters
    kl_component: tf.Tensor
    kl_gaussian: tf.Tensor
    kl: tf.Tensor


def draw_holes(config: MaskConfig, image: tf.Tensor, seeds: tf.Tensor) -> Holes:
    """Holes by the configured recipe.

    Args:
        config: extent and recipe.
        image: uint8 [B, S, S, C].
        seeds: int64 [B].
    """
    size = image.shape[1]
    nothing = tf.zeros([tf.shape(seeds)[0], size, size, 1])
    if config.extent == "whole":
        return Holes(nothing, nothing)
    if config.extent == "whole_seen":
        return Holes(nothing, tf.ones_like(nothing))
    if config.recipe == "centre":
        keep = centre_hole(seeds, size, sum(config.side) / 2)
    else:
        retina = tf.reduce_max(tf.cast(image, tf.int32), axis=-1) > DARK
        if config.recipe == "strokes":
            keep = stroke_holes(seeds, size, config.side, config.stroke_width, config.count, retina)
        else:
            count = config.count if config.recipe == "squares" else 1
            keep = square_holes(seeds, size, config.side, count, retina, config.retina_share)
    return Holes(keep, keep)


def generate(
    config: TVPSConfig,
    encoder: PartialEncoder,
    decoder: PartialDecoder,
    maps: tf.Tensor,
    visible: tf.Tensor,
    seeds: tf.Tensor,
    *,
    training: bool = False,
    component: tf.Tensor | None = None,
    most_likely: bool = False,
) -> Generated:
    """Encodes [V·m, m], draws a latent vector, decodes.

    Args:
        config: the method's.
        encoder, decoder: the generator.
        maps: V, float32 [B, S, S, C] in [0, 1].
        visible: m.
        seeds: int64 [B].
        training: whether norms take the batch's statistics, and, with posterior 'xy', the latent vector comes from the whole map.
        component: as for `sample_latent`.
        most_likely: as there.
    """
    own = config.generator
    features, heads = encoder(tf.concat([maps * visible, visible], -1), training=training)
    masked = MixtureParameters(*heads)
    mixture, prior = masked, None
    if own.posterior == "xy" and training:
        _, whole = encoder(tf.concat([maps, tf.ones_like(visible)], -1), training=True)
        mixture, prior = MixtureParameters(*whole), heads
    if own.variational:
        latent, chosen = sample_latent(
            mixture,
            seeds,
            temperature=own.temperature,
            gumbel_input=own.gumbel_input,
            component=component,
            most_likely=most_likely,
        )
        parts = mixture_kl(mixture.log_weights, mixture.mean, mixture.log_variance, prior)
        if config.losses.kl_reduction == "reference":
            kl = mixture_kl_reference(mixture.log_weights, mixture.mean, mixture.log_variance)
        else:
            kl = tf.reduce_mean(parts[0] + parts[1])
    else:
        chosen = tf.exp(masked.log_weights)
        latent = tf.einsum("bk,bkd->bd", chosen, masked.mean)
        parts = (tf.zeros(tf.shape(seeds)), tf.zeros(tf.shape(seeds)))
        kl = tf.constant(0.0)
    raw = decoder((latent, features), training=training)
    return Generated(raw, chosen, masked, parts[0], parts[1], kl)
