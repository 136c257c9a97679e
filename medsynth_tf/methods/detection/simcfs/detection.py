"""From the heads' numbers to boxes: decoding, suppression, and fusion of several models' boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from medsynth_tf.methods.detection.simcfs.objective import relative_boxes


class Letterbox(NamedTuple):
    """How a figure was fitted into a square: original · scale + offset (row, column), float32 scalar and [2]."""

    scale: tf.Tensor
    offset: tf.Tensor

    def forth(self, boxes: tf.Tensor) -> tf.Tensor:
        """Boxes [..., 4] of the figure → of the square."""
        return boxes * self.scale + tf.concat([self.offset, self.offset], 0)

    def back(self, boxes: tf.Tensor) -> tf.Tensor:
        """The inverse."""
        return (boxes - tf.concat([self.offset, self.offset], 0)) / self.scale


PADDING = 114.0


def letterbox(images: tf.Tensor, size: int) -> tuple[tf.Tensor, Letterbox]:
    """Figures scaled to a longer side of `size` and padded with grey 114 to squares.

    Args:
        images: uint8 [B, H, W, 3], of one size.
        size: side of the squares.

    Returns:
        float32 [B, size, size, 3] in [0, 1], and how.
    """
    shape = tf.shape(images)[1:3]
    scale = size / tf.reduce_max(shape)
    inner = tf.maximum(tf.cast(tf.round(tf.cast(shape, tf.float64) * scale), tf.int32), 1)
    before = (size - inner) // 2
    resized = tf.image.resize(tf.cast(images, tf.float32), inner, antialias=True)
    after = size - inner - before
    padding = [[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]]
    padded = tf.pad(resized, padding, constant_values=PADDING) / 255.0
    return tf.ensure_shape(padded, [None, size, size, 3]), Letterbox(tf.cast(scale, tf.float32), tf.cast(before, tf.float32))


def decode(maps: Sequence[tf.Tensor], anchors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """All boxes and their scores.

    Args:
        maps: logits of each level, [B, h, w, A, 5 + classes].
        anchors: (height, width) in pixels, float32 [levels, A, 2].

    Returns:
        Boxes float32 [B, N, 4] in pixels; σ(object)·σ(class) [B, N, classes].
    """
    boxes, scores = [], []
    for level, logits in enumerate(maps):
        stride = float(8 * 2**level)
        shape = tf.shape(logits)
        rows, columns = tf.meshgrid(tf.range(shape[1]), tf.range(shape[2]), indexing="ij")
        corner = tf.cast(tf.stack([rows, columns, rows, columns], -1), tf.float32)[:, :, tf.newaxis]
        found = (relative_boxes(logits, anchors[level] / stride) + corner) * stride
        boxes.append(tf.reshape(found, [shape[0], -1, 4]))
        classes = logits.shape[-1] - 5
        confidence = tf.sigmoid(logits[..., 4:5]) * tf.sigmoid(logits[..., 5:])
        scores.append(tf.reshape(confidence, [shape[0], -1, classes]))
    return tf.concat(boxes, 1), tf.concat(scores, 1)


def suppress(boxes: tf.Tensor, scores: tf.Tensor, confidence: float, overlap: float, most: int) -> dict[str, tf.Tensor]:
    """Of boxes of a class that overlap the best is kept.

    Args:
        boxes: [B, N, 4].
        scores: [B, N, C].
        confidence: least score.
        overlap: IoU above which the weaker one goes.
        most: boxes kept of an image.

    Returns:
        {"boxes" float32 [B, most, 4], "scores" float32 [B, most], "labels" int64 [B, most], best first, 0, 0 and -1 in rows that are
        not used; "count" int32 [B]}.
    """
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis], scores, most, most, iou_threshold=overlap, score_threshold=confidence, clip_boxes=False
    )
    used = tf.range(most) < kept.valid_detections[:, tf.newaxis]
    return {
        "boxes": kept.nmsed_boxes,
        "scores": kept.nmsed_scores,
        "labels": tf.where(used, tf.cast(kept.nmsed_classes, tf.int64), -1),
        "count": kept.valid_detections,
    }


Detections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes [N, 4], scores [N] and labels [N] of one figure."""


def fuse(models: Sequence[Detections], overlap: float = 0.5, skip: float = 0.0) -> Detections:
    """Weighted boxes fusion (Solovyev et al., arXiv:1910.13302) of several models' boxes of one figure, models of equal weight.

    Boxes of a class are taken best first; each joins the cluster whose fused box it overlaps most, if by more than `overlap`, or
    begins one. A fused box is the mean of its boxes, weighted by their scores; its score their mean, lowered where models are missing.

    Args:
        models: of each its detections.
        overlap: IoU.
        skip: boxes of lower score are left out.
    """
    boxes, scores, labels = (np.concatenate([np.asarray(model[i]) for model in models]) for i in range(3))
    fused: list[tuple[np.ndarray, float, int]] = []
    for label in np.unique(labels[scores >= skip]):
        clusters: list[list[int]] = []
        middles: list[np.ndarray] = []
        for index in np.argsort(-scores, kind="stable"):
            if labels[index] != label or scores[index] < skip:
                continue
            overlaps = [_overlap(boxes[index], middle) for middle in middles]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best < 0 or overlaps[best] <= overlap:
                clusters.append([])
                middles.append(boxes[index])
                best = len(clusters) - 1
            clusters[best].append(int(index))
            middles[best] = np.average(boxes[clusters[best]], axis=0, weights=scores[clusters[best]])
        for cluster, middle in zip(clusters, middles):
            score = float(scores[cluster].mean()) * min(len(cluster), len(models)) / len(models)
            fused.append((middle, score, int(label)))
    fused.sort(key=lambda entry: -entry[1])
    return (
        np.asarray([box for box, _, _ in fused], np.float32).reshape(-1, 4),
        np.asarray([score for _, score, _ in fused], np.float32),
        np.asarray([label for _, _, label in fused], np.int64),
    )


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    common = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    inner = float(np.prod(np.maximum(common, 0)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - inner
    return inner / union if union > 0 else 0.0


def crops(image: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """The panels: image uint8 [H, W, 3] cut at boxes [N, 4], rounded and clipped to it; empty ones are left out."""
    height, width = image.shape[:2]
    found = []
    for box in np.rint(boxes).astype(int):
        top, left, bottom, right = np.clip(box, 0, [height, width, height, width])
        if bottom > top and right > left:
            found.append(image[top:bottom, left:right])
    return found
