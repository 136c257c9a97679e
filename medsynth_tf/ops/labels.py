"""Label maps: integer codes, one-hot planes, painting order, instance edges.

A label map is uint8 [..., H, W] with codes 0 … K-2 and 255 for the background outside the field of view. One-hot planes have K
channels; the last is the background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

BACKGROUND = 255


def one_hot(label_map: tf.Tensor, channels: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """One-hot planes [..., H, W, channels] of a uint8 label map; code 255 becomes the last channel.

    Codes that are neither below `channels - 1` nor 255 give all-zero pixels; `assert_valid` refuses them first.
    """
    codes = tf.cast(label_map, tf.int32)
    codes = tf.where(codes == BACKGROUND, channels - 1, tf.where(codes < channels - 1, codes, -1))
    return tf.one_hot(codes, channels, dtype=dtype)


def from_one_hot(planes: tf.Tensor) -> tf.Tensor:
    """The label map uint8 [..., H, W] of one-hot planes (or the most probable class of soft ones)."""
    channels = planes.shape[-1]
    codes = tf.argmax(planes, axis=-1, output_type=tf.int32)
    return tf.cast(tf.where(codes == channels - 1, BACKGROUND, codes), tf.uint8)


def assert_valid(label_map: tf.Tensor, channels: int, name: str = "label_map") -> tf.Tensor:
    """`label_map`, or InvalidArgumentError if a code is neither below `channels - 1` nor 255."""
    codes = tf.cast(label_map, tf.int32)
    valid = tf.logical_or(codes == BACKGROUND, codes < channels - 1)
    message = f"{name}: label codes must be 0 … {channels - 2} or {BACKGROUND} (outside the field of view)"
    with tf.control_dependencies([tf.debugging.assert_equal(tf.reduce_all(valid), True, message)]):
        return tf.identity(label_map)


def paint(masks: Mapping[str, np.ndarray], names: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """A label map from one boolean mask per class, painted in `order`: a later class covers an earlier one.

    Args:
        masks: class name → bool [H, W]; classes without a mask are left out.
        names: classes by code, without the background.
        order: classes in painting order.

    Returns:
        uint8 [H, W]; pixels in no mask are background (255).
    """
    unknown = set(masks) - set(order)
    if unknown or not masks:
        raise ValueError(f"masks of {sorted(unknown)} have no place in the painting order {list(order)}")
    label_map = np.full(next(iter(masks.values())).shape, BACKGROUND, np.uint8)
    for name in order:
        if name in masks:
            label_map[np.asarray(masks[name], bool)] = names.index(name)
    return label_map


def instance_edges(instances: tf.Tensor) -> tf.Tensor:
    """Edge plane float32 [B, H, W, 1]: 1 where a pixel's instance differs from that of a 4-neighbour (SPADE, pix2pixHD).

    Args:
        instances: integer [B, H, W].
    """
    horizontal = instances[:, :, 1:] != instances[:, :, :-1]
    vertical = instances[:, 1:, :] != instances[:, :-1, :]
    left, right = tf.pad(horizontal, [[0, 0], [0, 0], [0, 1]]), tf.pad(horizontal, [[0, 0], [0, 0], [1, 0]])
    above, below = tf.pad(vertical, [[0, 0], [0, 1], [0, 0]]), tf.pad(vertical, [[0, 0], [1, 0], [0, 0]])
    return tf.cast(left | right | above | below, tf.float32)[..., tf.newaxis]
