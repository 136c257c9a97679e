"""MixUp, CutOut and CutMix on batches. All randomness is per sample, from its seed; a sample's partner is its neighbour in the
batch, which is shuffled."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.ops import random


def beta(seeds: tf.Tensor, alpha: float, name: str) -> tf.Tensor:
    """Beta(α, α) numbers, float32 [B], one stream per sample: γ₁ / (γ₁ + γ₂) of two Gamma(α) numbers."""
    gammas = tf.map_fn(
        lambda seed: tf.random.stateless_gamma([2], seed, alpha),
        random.sample_seeds(seeds, name),
        fn_output_signature=tf.TensorSpec([2], tf.float32),
    )
    gammas = tf.maximum(gammas, 1e-30)  # small α underflow to 0, and 0/0 is no share
    return gammas[:, 0] / (gammas[:, 0] + gammas[:, 1])


def mixup(images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor, alpha: float = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
    """λ·(x, y) + (1 - λ)·(x', y') with λ ~ Beta(α, α) (Zhang et al., arXiv:1710.09412, eq. 1).

    Args:
        images: float32 [B, H, W, C].
        targets: float32 [B, K], class weights that sum to 1.
        seeds: int64 [B].
        alpha: α, above 0.

    Returns:
        Images and targets of the same shapes.
    """
    share = beta(seeds, alpha, "mixup")
    return _mixed(images, share[:, tf.newaxis, tf.newaxis, tf.newaxis]), _mixed(targets, share[:, tf.newaxis])


def cutout(images: tf.Tensor, seeds: tf.Tensor, side: float = 0.5) -> tf.Tensor:
    """A square of zeros, `side` of the image's, whose middle is uniform over the image (DeVries and Taylor, arXiv:1708.04552).

    Args:
        images: float32 [B, H, W, C]; 0 should be the mean.
        seeds: int64 [B].
        side: share of the image's sides, in (0, 1].
    """
    height, width = images.shape[1], images.shape[2]
    middles = random.uniform(seeds, (2,), "cutout")
    half = tf.fill([tf.shape(seeds)[0]], 0.5 * side)
    box = _box(middles, half, height, width)
    return tf.where(box, tf.zeros_like(images), images)


def cutmix(
    images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor, alpha: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A box of the partner's image of area 1 - λ, λ ~ Beta(α, α); labels by the areas that are left after clipping it to the image
    (Yun et al., arXiv:1905.04899, eq. 1 and 2).

    Args:
        images, targets, seeds, alpha: as for `mixup`.

    Returns:
        Images, targets, and the kept share λ of each image, float32 [B].
    """
    height, width = images.shape[1], images.shape[2]
    half = 0.5 * tf.sqrt(1.0 - beta(seeds, alpha, "cutmix share"))
    box = _box(random.uniform(seeds, (2,), "cutmix place"), half, height, width)
    kept = 1.0 - tf.reduce_mean(tf.cast(box, tf.float32), [1, 2, 3])
    mixed = tf.where(box, tf.roll(images, 1, axis=0), images)
    share = kept[:, tf.newaxis]
    return mixed, _mixed(targets, share), kept


def _mixed(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return share * values + (1.0 - share) * tf.roll(values, 1, axis=0)


def _box(middles: tf.Tensor, half: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """bool [B, H, W, 1]: pixels whose middle is within `half` [B] of `middles` [B, 2], in shares of the sides."""
    rows = (tf.range(height, dtype=tf.float32) + 0.5) / height
    columns = (tf.range(width, dtype=tf.float32) + 0.5) / width
    reach = half[:, tf.newaxis]
    in_rows = tf.abs(rows - middles[:, :1]) < reach
    in_columns = tf.abs(columns - middles[:, 1:]) < reach
    return (in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis, :])[..., tf.newaxis]
