"""Signatures of multiplanar_unet: volumes in, probabilities and masks out."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.methods.segmentation.multiplanar_unet.segmenter import THRESHOLD, VolumeSegmenter


def signatures(segmenter: VolumeSegmenter) -> dict[str, Any]:
    """`serving_default`: volume float32 [B, D, H, W] of any intensities, spacing float32 [B, 3] in millimetres (axis order) →
    probability float32 [B, D, H, W], mask uint8 [B, D, H, W].

    `oblique`, in millimetre space: volume, and affine float32 [B, 4, 4] from array indices to millimetres, whose axes may have any
    directions and need not be at right angles → the same.
    """
    volumes = tf.TensorSpec([None, None, None, None], tf.float32, name="volume")

    def segment(volume: tf.Tensor, spacing: tf.Tensor) -> dict[str, tf.Tensor]:
        good = tf.reduce_all(tf.math.is_finite(spacing) & (spacing > 0.0))
        with tf.control_dependencies([tf.debugging.assert_equal(good, True, "spacing: must be millimetres above 0")]):
            steps = tf.cast(spacing, tf.float64)
        if segmenter.config.space == "voxel":
            steps = tf.ones_like(steps)
        return _segmented(segmenter, volume, tf.linalg.diag(steps), "spacing", tf.shape(spacing)[0])

    def oblique(volume: tf.Tensor, affine: tf.Tensor) -> dict[str, tf.Tensor]:
        axes = tf.cast(affine[:, :3, :3], tf.float64)
        lengths = tf.norm(axes, axis=1)
        flat = tf.abs(tf.linalg.det(axes)) < 1e-3 * tf.reduce_prod(lengths, -1)
        bad = tf.reduce_any(flat | tf.reduce_any(lengths <= 0.0, -1)) | ~tf.reduce_all(tf.math.is_finite(axes))
        with tf.control_dependencies(
            [tf.debugging.assert_equal(bad, False, "affine: must be finite and its axes independent")]
        ):
            axes = tf.identity(axes)
        return _segmented(segmenter, volume, axes, "affine", tf.shape(affine)[0])

    spacings = tf.TensorSpec([None, 3], tf.float32, name="spacing")
    found = {"serving_default": tf.function(segment, input_signature=[volumes, spacings])}
    if segmenter.config.space == "mm":
        affines = tf.TensorSpec([None, 4, 4], tf.float32, name="affine")
        found["oblique"] = tf.function(oblique, input_signature=[volumes, affines])
    return found


def _segmented(
    segmenter: VolumeSegmenter, volume: tf.Tensor, axes: tf.Tensor, name: str, others: tf.Tensor
) -> dict[str, tf.Tensor]:
    shape = tf.shape(volume)
    most = segmenter.config.views.largest_side
    first = [
        tf.debugging.assert_positive(shape[0], "volume: the batch is empty"),
        tf.debugging.assert_equal(shape[0], others, f"volume and {name} differ in batch size"),
        tf.debugging.assert_positive(tf.reduce_min(shape[1:]), "volume: a side is 0"),
    ]
    with tf.control_dependencies(first):
        sides = segmenter.longest_side(shape[1:], tf.identity(axes))
        checks = [
            tf.debugging.assert_equal(tf.reduce_all(tf.math.is_finite(volume)), True, "volume: values must be finite"),
            tf.debugging.assert_less_equal(
                tf.reduce_max(sides),
                tf.constant(float(most), tf.float64),
                f"{name}: views would have sides of more than {most} points",
            ),
        ]
    with tf.control_dependencies(checks):  # before anything runs
        volume = tf.identity(volume)
    probability = tf.map_fn(
        lambda one: segmenter.probability(*one),
        (volume, axes),
        fn_output_signature=tf.TensorSpec([None, None, None], tf.float32),
        parallel_iterations=1,
    )
    return {"probability": probability, "mask": tf.cast(probability > THRESHOLD, tf.uint8)}


def example_inputs(segmenter: VolumeSegmenter) -> dict[str, dict[str, np.ndarray]]:
    """One request per signature: a bright ball in a small volume, along the axes and turned."""
    steps = np.arange(12) - 5.5
    distance = np.sqrt(steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2)
    volume = np.clip(5.0 - distance, 0.0, 1.0).astype(np.float32)[np.newaxis]
    found = {"serving_default": {"volume": volume, "spacing": np.ones([1, 3], np.float32)}}
    if segmenter.config.space == "mm":
        affine = np.eye(4, dtype=np.float32)[np.newaxis]
        affine[0, :3, :3] = [[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.25]]
        found["oblique"] = {"volume": volume, "affine": affine}
    return found
