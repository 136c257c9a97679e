"""From soft label maps of the label generator to the hard maps that are translated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.ops.labels import BACKGROUND

RETINA = 0


def harden(soft: tf.Tensor, size: int, mask_retina: bool = False) -> tf.Tensor:
    """Hard label maps: soft planes enlarged bilinearly, thresholded at 0.5; where no class passes, code 0 (retina).

    Args:
        soft: class probabilities [B, h, w, K], the last channel being the background.
        size: side of the hard maps (512 from soft maps of 256 in the paper).
        mask_retina: replace retina and background by an ideal centred disc of radius size/2 - 1; other classes stay.

    Returns:
        uint8 [B, size, size].
    """
    planes = tf.image.resize(soft, [size, size], method="bilinear")
    channels = soft.shape[-1]
    won = planes > 0.5  # at most one class can pass, since the planes sum to 1
    codes = tf.argmax(tf.cast(won, tf.int32), axis=-1, output_type=tf.int32)  # no winner: all zero, so class 0
    codes = tf.where(codes == channels - 1, BACKGROUND, codes)
    if mask_retina:
        field = tf.where(disc(size), RETINA, BACKGROUND)[tf.newaxis]
        codes = tf.where((codes == RETINA) | (codes == BACKGROUND), field, codes)
    return tf.cast(codes, tf.uint8)


def disc(size: int) -> tf.Tensor:
    """bool [size, size]: pixels whose centre is within size/2 - 1 of the map's centre."""
    offset = tf.range(size, dtype=tf.float32) - (size - 1) / 2
    return offset[:, tf.newaxis] ** 2 + offset[tf.newaxis, :] ** 2 <= (size / 2 - 1) ** 2


def instance_map(label_map: tf.Tensor, code: int) -> tf.Tensor:
    """uint8, 1 where the label map has `code` (the optic disc), else 0."""
    return tf.cast(label_map == tf.cast(code, label_map.dtype), tf.uint8)


def copy_paste(label_maps: np.ndarray, grades: np.ndarray, grade: int, order: Sequence[int], seed: int) -> np.ndarray:
    """The baseline to the label generator: each class of a map is copied from another real map of the same grade.

    Over an ideal disc of retina; one source is drawn for each class, classes are painted in `order`.

    Args:
        label_maps: uint8 [N, S, S].
        grades: int [N], of the maps.
        grade: asked for.
        order: codes of the classes in painting order; retina and background, which the disc gives, are passed over.
        seed: of the draw.

    Returns:
        uint8 [S, S].

    Raises:
        DataError: no map has that grade.
    """
    candidates = np.flatnonzero(np.asarray(grades) == grade)
    if not len(candidates):
        raise DataError(f"copy-paste: none of the {len(label_maps)} label maps has grade {grade}")
    result = np.where(disc(label_maps.shape[1]).numpy(), np.uint8(RETINA), np.uint8(BACKGROUND))
    rng = numpy_generator(seed, "copy_paste", grade)
    for code in order:
        source = label_maps[rng.choice(candidates)]
        if code not in (RETINA, BACKGROUND):
            result[source == code] = code
    return result
