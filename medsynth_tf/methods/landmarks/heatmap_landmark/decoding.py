"""From probability maps to points: threshold, opening, cutting of large blobs, centroids (paper, section on post-processing)."""

from __future__ import annotations

import tensorflow as tf

from medsynth_tf.methods.landmarks.heatmap_landmark.config import DecoderConfig
from medsynth_tf.ops import blobs as blob_ops


def binarise(probability: tf.Tensor, config: DecoderConfig) -> tf.Tensor:
    """p >= threshold, bool [B, H, W]; nothing in a map that is constant or whose maximum is below `minimum_peak`."""
    highest = tf.reduce_max(probability, [1, 2])
    if config.threshold == "otsu":
        threshold = blob_ops.otsu_threshold(probability)
    else:
        threshold = tf.fill(tf.shape(highest), config.fixed_threshold)
    there = (highest > tf.reduce_min(probability, [1, 2])) & (highest >= config.minimum_peak)
    return (probability >= threshold[:, tf.newaxis, tf.newaxis]) & there[:, tf.newaxis, tf.newaxis]


def cut_large(mask: tf.Tensor, factor: float) -> tf.Tensor:
    """Blobs of more than `factor` times their image's mean area, rounded down, lose a one-pixel line across their shorter side.

    All lines are decided before the first is drawn; each ends with the bounding box of its blob.
    """
    found = blob_ops.measure_components(blob_ops.label_components(mask))
    batch = tf.shape(mask)[0]
    mean = tf.floor(tf.math.unsorted_segment_mean(tf.cast(found.area, tf.float64), found.image, batch))
    large = tf.cast(found.area, tf.float64) > factor * tf.gather(mean, found.image)
    return mask & ~blob_ops.cut_lines(found, large, tf.shape(mask))


def decode(probability: tf.Tensor, config: DecoderConfig) -> dict[str, tf.Tensor]:
    """The points of each map.

    Args:
        probability: float32 [B, H, W] in [0, 1].
        config: which steps are taken, and how.

    Returns:
        {"points": float32 [B, P, 2], (row, column) at sub-pixel places, those of larger blobs first, -1 in rows that are not used;
        "count": int32 [B], how many rows are}; P is `max_points`, beyond which the smallest blobs are left out.
    """
    mask = binarise(probability, config)
    if config.opening_radius:
        mask = blob_ops.opening(mask, config.opening_radius)
    if config.cut:
        mask = cut_large(mask, config.cut_area_factor)
    found = blob_ops.measure_components(blob_ops.label_components(mask))
    batch, limit = tf.shape(mask)[0], config.max_points
    pixels = tf.shape(mask)[1] * tf.shape(mask)[2]
    order = tf.argsort(found.image * (pixels + 1) + (pixels - found.area), stable=True)
    image = tf.gather(found.image, order)
    total = tf.math.unsorted_segment_sum(tf.ones_like(image), image, batch)
    place = tf.range(tf.size(image)) - tf.gather(tf.cumsum(total, exclusive=True), image)
    kept = place < limit
    where = tf.boolean_mask(tf.stack([image, place], -1), kept)
    centroids = tf.boolean_mask(tf.gather(found.centroid, order), kept)
    points = tf.tensor_scatter_nd_update(tf.fill([batch, limit, 2], -1.0), where, centroids)
    return {"points": points, "count": tf.minimum(total, limit)}
