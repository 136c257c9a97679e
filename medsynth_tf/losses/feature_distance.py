"""Distances between lists of feature maps, for feature matching and perceptual losses. Targets are constants."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def root_mean_square_distance(targets: Sequence[tf.Tensor], features: Sequence[tf.Tensor]) -> tf.Tensor:
    """Mean over maps and samples of √(mean (target - feature)²), float32 scalar; 0, with gradient 0, where they are equal.

    The L2 feature matching of Zhou et al. (arXiv:1912.04670, eq. 1), per element, so that no map counts more for being large.

    Args:
        targets, features: lists of equal length of maps [B, ...]; no gradient goes into targets.
    """
    return tf.add_n([_root(target, feature) for target, feature in zip(targets, features)]) / len(features)


def _root(target: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
    difference = tf.cast(feature, tf.float32) - tf.stop_gradient(tf.cast(target, tf.float32))
    squares = tf.reduce_mean(difference**2, axis=list(range(1, feature.shape.rank)))
    above = squares > 0.0
    return tf.reduce_mean(tf.where(above, tf.sqrt(tf.where(above, squares, 1.0)), 0.0))  # √ has no derivative at 0


def mean_absolute_distance(targets: Sequence[tf.Tensor], features: Sequence[tf.Tensor]) -> tf.Tensor:
    """Mean over maps of mean |target - feature|, float32 scalar (the same eq. 1, perceptual term); arguments as above."""
    return tf.add_n(
        [
            tf.reduce_mean(tf.abs(tf.cast(feature, tf.float32) - tf.stop_gradient(tf.cast(target, tf.float32))))
            for target, feature in zip(targets, features)
        ]
    ) / len(features)
