"""Graph functions that turn records into training examples: sizes, label maps, flips and intensity ranges.

Images are [H, W, C] or [D, H, W, C], label maps [H, W] or [D, H, W]; sizes need not be known when the graph is built.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.records import OUTSIDE

_UNIT_SCALES = {tf.uint8: 127.5, tf.uint16: 32767.5}


def resize_image(image: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Resizes by area means where every side shrinks or stays, else by antialiased linear interpolation.

    Args:
        image: [H, W, C] or [D, H, W, C].
        size: (H, W) or (D, H, W).

    Returns:
        The image of the new size in the type it had; integers are rounded.
    """
    return _rounded(_resized(image, tuple(size)), image.dtype)


def _resized(image: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    """As float32."""
    if image.shape.rank != len(size) + 1:
        raise ConfigError(
            f"size {size} for an image of rank {image.shape.rank}: expected one number for each axis but the last"
        )
    if len(size) == 2:
        return tf.squeeze(resize_images(image[tf.newaxis], size), 0)
    planes = resize_images(image, size[1:])  # [D, h, w, C]
    columns = resize_images(tf.transpose(planes, [1, 0, 2, 3]), (size[0], size[2]))  # [h, d, w, C]
    return tf.transpose(columns, [1, 0, 2, 3])


def resize_images(images: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    """Images [B, H, W, C] as `resize_image` does one, as float32 and not rounded."""
    images = tf.cast(images, tf.float32)
    shrinks = tf.reduce_all(tf.constant(size) <= tf.shape(images)[1:3])
    resized = tf.cond(
        shrinks,
        lambda: tf.image.resize(images, size, method="area"),
        lambda: tf.image.resize(images, size, method="bilinear", antialias=True),
    )
    return tf.ensure_shape(resized, [images.shape[0], *size, images.shape[-1]])


def _rounded(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.saturate_cast(tf.round(values), dtype) if dtype.is_integer else tf.cast(values, dtype)


def resize_label_map(mask: tf.Tensor, size: Sequence[int], values: Sequence[int], minimum_coverage: float = 0.5) -> tf.Tensor:
    """Resizes a label map by how much of each new pixel each class covers, so that thin structures survive.

    A pixel gets the last class in `values` that covers at least `minimum_coverage` of it, or where none does, the class
    that covers most. No label appears that was not there, and a map of the same size comes back unchanged.

    Args:
        mask: [H, W] or [D, H, W], of integers.
        size: (H, W) or (D, H, W).
        values: all labels that may occur, in paint order: later ones are painted over earlier ones.
        minimum_coverage: in (0, 1]; 0.2 keeps vessels of one pixel when the sides shrink to a quarter.

    Raises:
        ConfigError: `minimum_coverage` is out of range. InvalidArgumentError (in the graph): another label occurs.
    """
    if not 0 < minimum_coverage <= 1:
        raise ConfigError(f"minimum_coverage = {minimum_coverage}: must be above 0 and at most 1")
    classes = tf.constant(list(values), tf.int32)
    is_class = tf.equal(tf.cast(mask, tf.int32)[..., tf.newaxis], classes)
    check = tf.debugging.Assert(
        tf.reduce_all(tf.reduce_any(is_class, axis=-1)), ["a label map holds labels other than", classes, "mask:", mask]
    )
    with tf.control_dependencies([check]):
        coverage = _resized(tf.cast(is_class, tf.float32), tuple(size))
    # Area means are sums of floats: a class that covers exactly the minimum must not fall short of it by rounding.
    enough = coverage >= minimum_coverage - 1e-5
    order = tf.range(1, len(values) + 1)
    last_enough = tf.reduce_max(tf.where(enough, order, 0), axis=-1)
    most = tf.argmax(coverage, axis=-1, output_type=tf.int32)
    return tf.cast(tf.gather(classes, tf.where(last_enough > 0, last_enough - 1, most)), mask.dtype)


def crop_to_square(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Crops a 2-D image to its field of view and pads that to a square.

    The field of view is the bounding box of what the mask does not call outside (255); the whole image where it never does.
    Padding is equal on both sides (one pixel more below or right where it is odd): zeros in the image, 255 in the mask.

    Args:
        image: [H, W, C].
        mask: uint8 [H, W].

    Returns:
        The image [S, S, C] and the mask [S, S], S the longer side of the field of view.
    """
    inside = tf.not_equal(mask, OUTSIDE)
    inside = tf.cond(tf.reduce_any(inside), lambda: inside, lambda: tf.ones_like(inside))
    rows = tf.where(tf.reduce_any(inside, axis=1))[:, 0]
    columns = tf.where(tf.reduce_any(inside, axis=0))[:, 0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    image, mask = image[top:bottom, left:right], mask[top:bottom, left:right]
    height, width = tf.shape(mask)[0], tf.shape(mask)[1]
    side = tf.maximum(height, width)
    before = tf.stack([(side - height) // 2, (side - width) // 2])
    padding = tf.stack([before, tf.stack([side - height, side - width]) - before], axis=1)
    return (
        tf.pad(image, tf.concat([padding, tf.zeros([1, 2], tf.int32)], axis=0)),
        tf.pad(mask, padding, constant_values=OUTSIDE),
    )


def flip(
    record: dict[str, tf.Tensor], seed: tf.Tensor, *, horizontal: bool = True, vertical: bool = False
) -> dict[str, tf.Tensor]:
    """Flips a record with probability one half along each chosen axis: image, mask, landmarks and boxes together.

    Args:
        record: one record, unbatched; entries of other names pass through.
        seed: int64 scalar of this sample; the same seed gives the same flips.
        horizontal: whether to flip left-right (the last space axis).
        vertical: whether to flip up-down (the one before).
    """
    flipped = dict(record)
    for chosen, axis, name in ((horizontal, -1, "flip horizontal"), (vertical, -2, "flip vertical")):
        if chosen:
            key = tf.stack([tf.cast(seed, tf.int64), tf.constant(derive_seed(0, name), tf.int64)])
            turn = tf.random.stateless_uniform([], key) < 0.5
            mirrored = _mirrored(flipped, axis)
            flipped |= {name: tf.where(turn, value, flipped[name]) for name, value in mirrored.items()}
    return flipped


def _mirrored(record: dict[str, tf.Tensor], axis: int) -> dict[str, tf.Tensor]:
    """The entries of a record that mirroring along a space axis (-1 columns, -2 rows) changes."""
    dimensions = record["image"].shape.rank - 1
    space = dimensions + axis
    length = tf.cast(tf.shape(record["image"])[space], tf.float32)
    mirrored: dict[str, tf.Tensor] = {}
    for name in ("image", "mask"):
        if name in record:
            mirrored[name] = tf.reverse(record[name], [space])
    if "landmarks" in record:
        points = tf.unstack(record["landmarks"], num=dimensions, axis=1)
        points[space] = length - 1 - points[space]
        mirrored["landmarks"] = tf.stack(points, axis=1)
    if "boxes" in record:
        corners = tf.unstack(record["boxes"], num=2 * dimensions, axis=1)
        low, high = corners[space], corners[dimensions + space]
        corners[space], corners[dimensions + space] = length - high, length - low
        mirrored["boxes"] = tf.stack(corners, axis=1)
    return mirrored


def to_unit_range(image: tf.Tensor) -> tf.Tensor:
    """uint8 or uint16 of any shape → float32 in [-1, 1], the type's 0 to -1 and its maximum to 1.

    Raises:
        ConfigError: another type; those have no natural range, see `normalise_intensity`.
    """
    if image.dtype not in _UNIT_SCALES:
        raise ConfigError(f"images of type {image.dtype.name} have no natural range; give an intensity window")
    return tf.cast(image, tf.float32) / _UNIT_SCALES[image.dtype] - 1.0


def from_unit_range(image: tf.Tensor) -> tf.Tensor:
    """float in [-1, 1] of any shape → uint8; values outside are clipped. The inverse of `to_unit_range` for uint8."""
    return tf.saturate_cast(tf.round((tf.cast(image, tf.float32) + 1.0) * 127.5), tf.uint8)


def normalise_intensity(image: tf.Tensor, window: tuple[float | tf.Tensor, float | tf.Tensor]) -> tf.Tensor:
    """Any numeric image → float32 in [-1, 1]: `window` = (low, high) in the image's units goes to -1 and 1, clipped beyond."""
    low, high = tf.cast(window[0], tf.float32), tf.cast(window[1], tf.float32)
    width = tf.maximum(high - low, tf.keras.backend.epsilon())  # a flat image becomes -1 everywhere, not NaN
    return tf.clip_by_value(2.0 * (tf.cast(image, tf.float32) - low) / width - 1.0, -1.0, 1.0)


def percentile_window(image: tf.Tensor, low: float = 0.5, high: float = 99.5) -> tuple[tf.Tensor, tf.Tensor]:
    """The percentiles `low` and `high`, in [0, 100], of all values, by linear interpolation as NumPy's; float32 scalars."""
    ordered = tf.sort(tf.reshape(tf.cast(image, tf.float32), [-1]))
    last = tf.cast(tf.size(ordered) - 1, tf.float64)

    def percentile(rank: float) -> tf.Tensor:
        position = last * rank / 100.0
        below = tf.floor(position)
        part = tf.cast(position - below, tf.float32)
        neighbours = tf.gather(ordered, tf.cast([below, tf.minimum(below + 1, last)], tf.int32))
        return neighbours[0] * (1 - part) + neighbours[1] * part

    return percentile(low), percentile(high)
