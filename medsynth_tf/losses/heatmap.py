"""Losses between predicted heatmaps, given as logits, and Gaussian targets in [0, 1]; float32 scalars over the whole batch."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from medsynth_tf.losses.binary_segmentation import pixel_cross_entropy, soft_dice_loss

HeatmapLoss = Literal["dice", "bce_dice", "focal", "mse_dice", "mse"]
FOCAL_ALPHA, FOCAL_GAMMA = 0.8, 2.0


def heatmap_loss(logits: tf.Tensor, target: tf.Tensor, kind: HeatmapLoss = "dice") -> tf.Tensor:
    """How far a heatmap is from its target.

    Args:
        logits: float [B, H, W]; p is their sigmoid.
        target: t, float [B, H, W] in [0, 1].
        kind: 'dice': 1 - (2·Σ p·t + 1)/(Σ p + Σ t + 1), all pixels of the batch in one sum; 'bce_dice': cross-entropy + 'dice';
            'focal': α (1 - e^-c)^γ c of the batch's mean cross-entropy c (α 0.8, γ 2), as the authors compute it; 'mse': mean of
            (p - t)²; 'mse_dice': 'mse' + 'dice', the baseline's.
    """
    if kind == "dice":
        return soft_dice_loss(logits, target)
    if kind == "bce_dice":
        return pixel_cross_entropy(logits, target) + soft_dice_loss(logits, target)
    if kind == "focal":
        entropy = pixel_cross_entropy(logits, target)
        return FOCAL_ALPHA * (1.0 - tf.exp(-entropy)) ** FOCAL_GAMMA * entropy
    squared = tf.reduce_mean(tf.square(tf.sigmoid(tf.cast(logits, tf.float32)) - tf.cast(target, tf.float32)))
    return squared if kind == "mse" else squared + soft_dice_loss(logits, target)
