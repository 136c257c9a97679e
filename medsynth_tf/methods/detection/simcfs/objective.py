"""What the detector learns: which cells and anchors answer for a box, and the four losses (paper, eqs. 1 to 6; YOLOv5 5.0)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from medsynth_tf.methods.detection.simcfs.config import SimCFSConfig
from medsynth_tf.ops.boxes import centres, complete_iou, from_centres, overshoot, sizes

# a cell and its neighbours: (row, column) steps back from a box's centre
_STEPS = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.0, -0.5), (-0.5, 0.0))


class Matches(NamedTuple):
    """Which predictions of a level answer for which boxes, K in all.

    Attributes:
        place: (image, row, column, anchor) of the predictions, int32 [K, 4].
        box: of the truth, in cells of the level and relative to the cell's corner, float32 [K, 4].
        anchor: (height, width) in cells, float32 [K, 2].
        label: class, int64 [K].
    """

    place: tf.Tensor
    box: tf.Tensor
    anchor: tf.Tensor
    label: tf.Tensor


def match(
    boxes: tf.Tensor, labels: tf.Tensor, anchors: tf.Tensor, grid: tuple[int, int], stride: float, ratio: float
) -> Matches:
    """Assigns boxes to a level: to anchors of like size, in the centre's cell and in its nearest neighbours along rows and columns.

    Args:
        boxes: float32 [B, M, 4] in pixels.
        labels: int64 [B, M], -1 where there is no box.
        anchors: (height, width) in pixels, float32 [A, 2].
        grid: rows and columns of the level.
        stride: pixels of a cell.
        ratio: sides must differ by less than this factor.
    """
    scaled, cells = boxes / stride, anchors / stride
    middle, size = centres(scaled), sizes(scaled)
    ratios = size[:, :, tf.newaxis] / cells  # [B, M, A, 2]
    fits = tf.reduce_max(tf.maximum(ratios, 1.0 / tf.maximum(ratios, 1e-9)), -1) < ratio
    fits &= (labels >= 0)[..., tf.newaxis]
    extent = tf.constant(grid, tf.float32)
    fraction, from_end = middle % 1.0, (extent - middle) % 1.0
    back = (fraction < 0.5) & (middle > 1.0)  # the cell before is nearer, and is there
    forth = (from_end < 0.5) & (extent - middle > 1.0)
    near = tf.stack([tf.ones_like(back[..., 0]), back[..., 1], back[..., 0], forth[..., 1], forth[..., 0]], -1)  # [B, M, 5]
    chosen = tf.where(fits[..., tf.newaxis] & near[:, :, tf.newaxis])  # [K, 4]: image, box, anchor, step
    of_box = chosen[:, :2]
    steps = tf.gather(tf.constant(_STEPS), chosen[:, 3])
    own, own_size = tf.gather_nd(middle, of_box), tf.gather_nd(size, of_box)
    cell = tf.clip_by_value(tf.floor(own - steps), 0.0, extent - 1.0)
    place = tf.concat([chosen[:, :1], tf.cast(cell, tf.int64), chosen[:, 2:3]], -1)
    return Matches(
        place=tf.cast(place, tf.int32),
        box=from_centres(own - cell, own_size),
        anchor=tf.gather(cells, chosen[:, 2]),
        label=tf.gather_nd(labels, of_box),
    )


def relative_boxes(logits: tf.Tensor, anchor: tf.Tensor) -> tf.Tensor:
    """Boxes of numbers [K, ≥ 4] (column, row, width, height), in cells and relative to the cell's corner: float32 [K, 4].

    Centre 2σ(t) - 0.5, size (2σ(t))² · anchor.
    """
    half = 2.0 * tf.sigmoid(logits[..., :4])
    middle = tf.reverse(half[..., :2], [-1]) - 0.5
    return from_centres(middle, tf.square(tf.reverse(half[..., 2:4], [-1])) * anchor)


def inverse_relative_boxes(boxes: tf.Tensor, anchor: tf.Tensor) -> tf.Tensor:
    """The four numbers that `relative_boxes` makes these boxes of; centres in (-0.5, 1.5), sizes below 4 anchors."""

    def logit(p: tf.Tensor) -> tf.Tensor:
        return tf.math.log(p) - tf.math.log(1.0 - p)

    middle = (tf.reverse(centres(boxes), [-1]) + 0.5) / 2.0
    return logit(tf.concat([middle, tf.sqrt(tf.reverse(sizes(boxes) / anchor, [-1])) / 2.0], -1))


def losses(
    maps: list[tf.Tensor], anchors: tf.Tensor, boxes: tf.Tensor, labels: tf.Tensor, config: SimCFSConfig
) -> dict[str, tf.Tensor]:
    """{"box", "objectness", "classification", "side"}, unweighted, float32 scalars: means over a level's matches, summed over levels.

    Args:
        maps: logits of each level, [B, h, w, A, 5 + classes].
        anchors: (height, width) in pixels, float32 [levels, A, 2].
        boxes, labels: as for `match`.
        config: ratio, balance and units.
    """
    total = {name: tf.constant(0.0) for name in ("box", "objectness", "classification", "side")}
    for level, logits in enumerate(maps):
        stride = float(8 * 2**level)
        grid = (int(logits.shape[1]), int(logits.shape[2]))
        found = match(boxes, labels, anchors[level], grid, stride, config.losses.anchor_ratio)
        numbers = tf.gather_nd(logits, found.place)
        predicted = relative_boxes(numbers, found.anchor)
        overlap = complete_iou(predicted, found.box)
        beyond = overshoot(predicted, found.box)
        if config.losses.side_units != "grid":
            beyond *= stride / (config.image_size if config.losses.side_units == "normalised" else 1.0)
        total["box"] += _mean(1.0 - overlap)
        total["side"] += _mean(beyond)
        if config.classes > 1:
            truth = tf.one_hot(found.label, config.classes)
            total["classification"] += _mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, numbers[:, 5:]))
        # where several boxes claim a prediction the best one counts
        target = tf.tensor_scatter_nd_max(
            tf.zeros(tf.shape(logits)[:4]), found.place, tf.stop_gradient(tf.maximum(overlap, 0.0))
        )
        entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, logits[..., 4]))
        total["objectness"] += config.losses.balance[level] * entropy
    return total


def _mean(values: tf.Tensor) -> tf.Tensor:
    """0 without any."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), tf.float32))
