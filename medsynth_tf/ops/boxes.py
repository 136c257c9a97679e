"""Boxes as (row, column) minima then maxima: overlap, and what of one lies outside another."""

from __future__ import annotations

import math

import tensorflow as tf


def sizes(boxes: tf.Tensor) -> tf.Tensor:
    """Height and width, [..., 2]."""
    return boxes[..., 2:] - boxes[..., :2]


def centres(boxes: tf.Tensor) -> tf.Tensor:
    """Middle row and column, [..., 2]."""
    return 0.5 * (boxes[..., 2:] + boxes[..., :2])


def from_centres(middle: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Boxes [..., 4] of middles and sizes, [..., 2] each."""
    return tf.concat([middle - 0.5 * size, middle + 0.5 * size], -1)


def intersection_over_union(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """IoU of boxes of equal or broadcastable shapes [..., 4] → [...]; 0 where both are empty."""
    common = tf.minimum(first[..., 2:], second[..., 2:]) - tf.maximum(first[..., :2], second[..., :2])
    overlap = tf.reduce_prod(tf.maximum(common, 0.0), -1)
    union = tf.reduce_prod(sizes(first), -1) + tf.reduce_prod(sizes(second), -1) - overlap
    return tf.math.divide_no_nan(overlap, union)


def complete_iou(predicted: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """CIoU = IoU - ρ²/c² - α v (Zheng et al., arXiv:1911.08287, eqs. 7 to 11): overlap, distance of centres over the diagonal of the
    common box, and the difference in aspect; no gradient flows through α.

    Args:
        predicted, truth: float32 [..., 4].

    Returns:
        [...], 1 for equal boxes, negative for distant ones.
    """
    epsilon = 1e-7
    iou = intersection_over_union(predicted, truth)
    low, high = tf.minimum(predicted[..., :2], truth[..., :2]), tf.maximum(predicted[..., 2:], truth[..., 2:])
    diagonal = tf.reduce_sum(tf.square(high - low), -1) + epsilon
    distance = tf.reduce_sum(tf.square(centres(predicted) - centres(truth)), -1)

    def aspect(boxes: tf.Tensor) -> tf.Tensor:
        height, width = tf.unstack(sizes(boxes), axis=-1)
        return tf.atan(width / (height + epsilon))

    difference = 4.0 / math.pi**2 * tf.square(aspect(truth) - aspect(predicted))
    share = tf.stop_gradient(difference / (difference - iou + 1.0 + epsilon))
    return iou - distance / diagonal - share * difference


def overshoot(predicted: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """By how much each box leaves the true one, summed over its four sides: Σ max(0, …), [..., 4] and [..., 4] → [...].

    The side loss of Yao et al. (DGM4MICCAI 2021, eqs. 1 to 5): 0 if and only if the prediction lies within the truth.
    """
    before = tf.nn.relu(truth[..., :2] - predicted[..., :2])
    behind = tf.nn.relu(predicted[..., 2:] - truth[..., 2:])
    return tf.reduce_sum(before, -1) + tf.reduce_sum(behind, -1)
