"""Contact sheets: labelled rows of images as one PNG, for eyes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.data.records import Record
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.memorisation import Neighbours

_GAP = 4
_TEXT = 13
_LINE = 20  # pixels of a line of text
_LEAST_TILE, _MOST_TILE = 96, 256  # tiles are scaled into this range by whole factors where they can be
_PAPER, _INK = (255, 255, 255), (30, 30, 30)

# Distinct for common colour blindness; background values are dark, then by label value.
PALETTE = np.array(
    [
        [92, 40, 30],
        [86, 180, 233],
        [240, 228, 66],
        [213, 94, 0],
        [0, 158, 115],
        [255, 255, 255],
        [204, 121, 167],
        [0, 114, 178],
    ],
    np.uint8,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """Images under one heading.

    Attributes:
        heading: a line of text above them.
        images: uint8 [N, H, W, 3 or 1] or label maps [N, H, W].
        captions: one a picture below it, or none.
    """

    heading: str
    images: np.ndarray
    captions: Sequence[str] = ()


def write_sheet(path: str | Path, title: str, rows: Sequence[Row]) -> Path:
    """Writes rows of images, of equal size, as a PNG.

    Raises:
        DataError: there is no image, or an array is no image.
    """
    if not rows or not any(len(row.images) for row in rows):
        raise DataError(f"contact sheet '{title}': no images")
    tiles = [[_tile(image, row.heading) for image in row.images] for row in rows]
    height = max(tile.height for row in tiles for tile in row)
    width = max(tile.width for row in tiles for tile in row)
    columns = max(map(len, tiles))
    heights = [_LINE + height + (_LINE if row.captions else 0) + _GAP for row in rows]
    sheet = Image.new("RGB", (max(columns * (width + _GAP) + _GAP, 9 * len(title)), _LINE + 2 * _GAP + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT)
    draw.text((_GAP, _GAP), title, _INK, font)
    top = _LINE + 2 * _GAP
    for row, pictures, row_height in zip(rows, tiles, heights):
        draw.text((_GAP, top), row.heading, _INK, font)
        for column, picture in enumerate(pictures):
            left = _GAP + column * (width + _GAP)
            sheet.paste(picture, (left, top + _LINE))
            if column < len(row.captions):
                draw.text((left, top + _LINE + height + 2), row.captions[column], _INK, font)
        top += row_height
    path = Path(path)
    with replacing_file(path) as temporary:
        sheet.save(temporary, format="PNG")
    return path


def write_real_and_synthetic(path: str | Path, real: np.ndarray, synthetic: np.ndarray, count: int = 8) -> Path:
    """Real photographs above synthetic ones."""
    rows = [Row("Real", real[_spread(len(real), count)]), Row("SYNTHETIC", synthetic[_spread(len(synthetic), count)])]
    return write_sheet(path, "Real above, synthetic below", rows)


def write_masks_and_images(
    path: str | Path, masks: np.ndarray, synthetic: np.ndarray, labels: Mapping[str, int] | None = None, count: int = 8
) -> Path:
    """Each mask above the synthetic image made from it; `labels` names the values."""
    chosen = _spread(len(synthetic), count)
    named = ", ".join(f"{value} {name}" for name, value in (labels or {}).items())
    return write_sheet(
        path,
        "Label maps and the images made from them",
        [Row(f"Label map{': ' + named if named else ''}", masks[chosen]), Row("SYNTHETIC", synthetic[chosen])],
    )


def write_source(path: str | Path, source: Source, count: int = 8) -> Path:
    """Records of a source: images above their label maps, with classes below; of volumes the middle slice.

    Images of one channel and more than 8 bits, such as CT slices, are shown from the smallest value of all to the 99.5th percentile.

    Raises:
        DataError: a record cannot be read or is of another kind.
    """
    keys = source.keys()
    records = [_flat(source.read(keys[i])) for i in _spread(len(keys), count)]
    described = source.describe()
    names = ", ".join(f"{value} {name}" for name, value in described.get("labels", {}).items())
    captions = [f"label {record['label']}" if "label" in record else "" for record in records]
    images, window = _for_eyes([record["image"] for record in records])
    rows = [Row(f"Images{window}", _array(images), captions if any(captions) else ())]
    if all("landmarks" in record for record in records):
        marked = [mark_points(image, record["landmarks"]) for image, record in zip(images, records)]
        rows.append(Row("Landmarks", _array(marked)))
    if all("mask" in record for record in records):
        rows.append(Row(f"Label maps{': ' + names if names else ''}", _array([record["mask"] for record in records])))
    return write_sheet(path, f"{described['kind']} {described.get('name', '')}: {len(keys)} records", rows)


def _flat(record: Record) -> Record:
    """The middle slice of a volume with one channel, without its landmarks; any other record as it is."""
    image = record["image"]
    if image.ndim != 4 or image.shape[-1] != 1:
        return record
    slices: Record = {name: record[name][len(image) // 2] for name in ("image", "mask") if name in record}
    return {**{name: value for name, value in record.items() if name != "landmarks"}, **slices}


def _for_eyes(images: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], str]:
    """As uint8 if they are of one channel, and what was shown; others as they are."""
    if any(image.dtype == np.uint8 or image.ndim != 3 or image.shape[-1] != 1 for image in images):
        return images, ""
    values = np.concatenate([image.ravel() for image in images])
    low, high = float(values.min()), max(float(np.percentile(values, 99.5)), float(values.min()) + 1e-6)
    shown = [np.rint(np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8) for image in images]
    return shown, f", {low:.0f} to {high:.0f}"


def mark_points(
    image: np.ndarray, points: np.ndarray, colour: tuple[int, int, int] = (64, 255, 64), arm: int = 3
) -> np.ndarray:
    """A picture with a cross at each point.

    Args:
        image: uint8 [H, W, 1 or 3].
        points: [N, 2], (row, column); NaN, not visible, is passed over.
        colour: of the crosses.
        arm: pixels from the centre to an end.

    Returns:
        uint8 [H, W, 3].
    """
    picture = Image.fromarray(image.repeat(3 // image.shape[-1], axis=-1))
    draw = ImageDraw.Draw(picture)
    for point in points[np.isfinite(points).all(-1)]:
        row, column = (round(float(value)) for value in point)
        draw.line((column - arm, row, column + arm, row), colour)
        draw.line((column, row - arm, column, row + arm), colour)
    return np.asarray(picture)


def _array(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures that may differ in size, as an array of objects."""
    together = np.empty(len(pictures), object)
    together[:] = list(pictures)
    return together


def write_nearest(path: str | Path, synthetic: np.ndarray, train: np.ndarray, neighbours: Neighbours, count: int = 8) -> Path:
    """The synthetic images that are nearest to the training set, above their nearest training images."""
    order = np.argsort(neighbours.distance, kind="stable")[:count]
    threshold = np.percentile(neighbours.baseline, 5)
    captions = [f"{neighbours.distance[i]:.3g}" for i in order]
    return write_sheet(
        path,
        f"Nearest training images, in {neighbours.space}; 5 % of held-out images are nearer than {threshold:.3g}",
        [
            Row("SYNTHETIC", synthetic[order]),
            Row("Nearest training image; distance", train[neighbours.nearest[order]], captions),
        ],
    )


def colour_map(mask: np.ndarray) -> np.ndarray:
    """A label map in colours, uint8 [H, W, 3]; 255 is black."""
    return np.where((mask == 255)[..., None], np.uint8(0), PALETTE[mask % len(PALETTE)])


def _spread(total: int, count: int) -> np.ndarray:
    """Positions of `count` images evenly over the set: neighbours in a set are often much alike (eyes, patches)."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def _tile(image: np.ndarray, heading: str) -> Image.Image:
    if image.dtype == np.uint8 and image.ndim == 2:
        image = colour_map(image)
        resampling = Image.Resampling.NEAREST
    elif image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] in (1, 3):
        image = image.repeat(3 // image.shape[-1], axis=-1)
        resampling = Image.Resampling.BICUBIC
    else:
        got = f"{image.dtype} {list(image.shape)}"
        raise DataError(f"contact sheet, '{heading}': expected uint8 images [H, W, 1 or 3] or label maps [H, W], got {got}")
    side = max(image.shape[:2])
    factor = max(1.0, np.ceil(_LEAST_TILE / side)) if side <= _MOST_TILE else _MOST_TILE / side
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return Image.fromarray(image).resize(size, resampling)
