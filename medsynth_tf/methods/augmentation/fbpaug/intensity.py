"""Hounsfield units to what the network sees, and the augmentations of intensity that FBPAug is compared with (section 2.2)."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.methods.augmentation.fbpaug.config import AugmentConfig, FBPAugConfig
from medsynth_tf.ops import random


def scaled(hounsfield: tf.Tensor, low: tf.Tensor | float, high: tf.Tensor | float) -> tf.Tensor:
    """[B, H, W, 1] HU → float32 in [0, 1]: low … high is clipped to, then becomes 0 … 1."""
    return (tf.clip_by_value(hounsfield, low, high) - low) / (high - low)


def standardised(images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, 1] → mean 0 and deviation 1 of each slice; a flat one becomes 0."""
    centred = images - tf.reduce_mean(images, [1, 2, 3], keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(centred * centred, [1, 2, 3], keepdims=True))
    return centred / tf.maximum(deviation, 1e-6)


def network_input(hounsfield: tf.Tensor, config: FBPAugConfig) -> tf.Tensor:
    """What the network sees of slices that are not augmented: [B, H, W, 1] HU → float32."""
    images = scaled(hounsfield, *config.window)
    return standardised(images) if config.intensity == "zscore" else images


def augmented_input(hounsfield: tf.Tensor, seeds: tf.Tensor, config: FBPAugConfig) -> tf.Tensor:
    """As `network_input`, changed by gamma, noise or windowing as the configuration says (nothing of it for the kinds none and fbp).

    Args:
        hounsfield: float32 [B, H, W, 1].
        seeds: int64 [B]; each slice's change depends on its own.
    """
    own = config.augment
    images = scaled(hounsfield, *config.window)
    if own.kind in ("gamma", "noise", "windowing"):
        changed = {"gamma": gamma, "noise": noise, "windowing": windowing}[own.kind](
            hounsfield if own.kind == "windowing" else images, seeds, own
        )
        chosen = random.uniform(seeds, (), own.kind) < own.probability
        images = tf.where(chosen[:, tf.newaxis, tf.newaxis, tf.newaxis], changed, images)
    return standardised(images) if config.intensity == "zscore" else images


def gamma(images: tf.Tensor, seeds: tf.Tensor, own: AugmentConfig) -> tf.Tensor:
    """((I - m)/(M - m))^γ·(M - m) + m, with m and M of each slice and ln γ ~ N(0, σ); [B, H, W, 1] in [0, 1]."""
    exponent = tf.exp(own.gamma_log_std * random.normal(seeds, (), "ln γ"))[:, tf.newaxis, tf.newaxis, tf.newaxis]
    lowest, highest = (f(images, [1, 2, 3], keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    extent = highest - lowest
    share = tf.math.divide_no_nan(images - lowest, extent)
    return tf.pow(share, exponent) * extent + lowest


def noise(images: tf.Tensor, seeds: tf.Tensor, own: AugmentConfig) -> tf.Tensor:
    """I + N(0, σ), clipped to [0, 1]; [B, H, W, 1] in [0, 1]."""
    shape = tf.shape(images)[1:]
    added = tf.map_fn(
        lambda seed: tf.random.stateless_normal(shape, seed),
        random.sample_seeds(seeds, "additive noise"),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
    )
    return tf.clip_by_value(images + own.noise_std * added, 0.0, 1.0)


def windowing(hounsfield: tf.Tensor, seeds: tf.Tensor, own: AugmentConfig) -> tf.Tensor:
    """HU clipped to a window of random centre c and width w, which becomes 0 … 1; [B, H, W, 1]."""
    drawn = random.uniform(seeds, (2,), "window")[:, tf.newaxis, tf.newaxis, tf.newaxis]
    (c_low, c_high), (w_low, w_high) = own.window_centre, own.window_width
    centre = c_low + (c_high - c_low) * drawn[..., 0]
    half = (w_low + (w_high - w_low) * drawn[..., 1]) / 2.0
    return scaled(hounsfield, centre - half, centre + half)
