"""Average precision of detections, by the COCO evaluation itself (pycocotools), and how predictions miss their boxes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

MOST = 300


def average_precision(
    detections: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: int,
) -> dict[str, Any]:
    """Precision envelope over 101 recalls, detections by falling score, each true box found once at most.

    Args:
        detections: of each figure, boxes [M, 4] as (row, column) minima then maxima, scores [M], labels [M].
        truth: of each figure, boxes [N, 4] and labels [N].
        classes: how many.

    Returns:
        {"map" (mean over IoU .5 to .95 and classes), "map_50" (at IoU 0.5), "per_class" (of each class over IoU .5 to .95; None without
        a true box)}; None where there is no true box at all.
    """
    images = [{"id": i + 1} for i in range(len(truth))]
    annotations: list[dict[str, Any]] = []
    for i, (boxes, labels) in enumerate(truth):
        for box, label in zip(boxes, labels):
            entry = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": int(label) + 1, "iscrowd": 0}
            annotations.append({**entry, **_coco_box(box)})
    results: list[dict[str, Any]] = []
    for i, (boxes, scores, labels) in enumerate(detections):
        for box, score, label in zip(boxes, scores, labels):
            results.append({"image_id": i + 1, "category_id": int(label) + 1, "score": float(score), **_coco_box(box)})
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        known = COCO()
        known.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": c + 1} for c in range(classes)],
        }
        known.createIndex()
        if not annotations:
            return {"map": None, "map_50": None, "per_class": [None] * classes}
        found = known.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**known.dataset, "annotations": []}
            found.createIndex()
        judge = COCOeval(known, found, "bbox")
        judge.params.maxDets = [MOST]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e12]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # [IoU, recall, class], -1 where there is no true box

    def mean(values: np.ndarray) -> float | None:
        values = values[values > -1]
        return float(values.mean()) if values.size else None

    return {
        "map": mean(precision),
        "map_50": mean(precision[0]),
        "per_class": [mean(precision[:, :, c]) for c in range(classes)],
    }


def _coco_box(box: np.ndarray) -> dict[str, Any]:
    """[left, top, width, height] and the area."""
    top, left, bottom, right = (float(value) for value in box)
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def over_share(
    detections: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    least_score: float = 0.15,
    least_iou: float = 0.5,
) -> float | None:
    """Of the pixels by which sides of matched boxes miss, the share that lies outside the true box.

    Each true box is matched with the detection of its class that overlaps it most, if by more than `least_iou` at a score of at least
    `least_score`. Over-detection takes pixels of the neighbour panel along; the side loss is to lower this share.

    Returns:
        over / (over + under); None without a miss.
    """
    over = under = 0.0
    for (boxes, scores, labels), (true_boxes, true_labels) in zip(detections, truth):
        for box, label in zip(true_boxes, true_labels):
            candidates = boxes[(labels == label) & (scores >= least_score)]
            if not len(candidates):
                continue
            low, high = np.maximum(candidates[:, :2], box[:2]), np.minimum(candidates[:, 2:], box[2:])
            inner = np.prod(np.maximum(high - low, 0), -1)
            union = np.prod(candidates[:, 2:] - candidates[:, :2], -1) + np.prod(box[2:] - box[:2]) - inner
            overlap = inner / np.maximum(union, 1e-9)
            best = int(overlap.argmax())
            if overlap[best] <= least_iou:
                continue
            outward = np.concatenate([box[:2] - candidates[best, :2], candidates[best, 2:] - box[2:]])
            over += float(np.maximum(outward, 0).sum())
            under += float(np.maximum(-outward, 0).sum())
    return over / (over + under) if over + under > 0 else None
