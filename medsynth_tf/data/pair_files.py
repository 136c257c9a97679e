"""Synthetic photographs and their masks as files: one file an image, one a mask, and a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.data.joint_config import MASK_NAMES
from medsynth_tf.data.writers import Provenance, write_image


def write_pairs(
    folder: str | Path,
    images: np.ndarray,
    masks: np.ndarray,
    provenance: Sequence[Provenance],
    names: Sequence[str] = MASK_NAMES[:1],
) -> Path:
    """Writes `000000.png` and `000000_optic_disc.png` (0 outside, 255 inside), and so on, and `pairs.csv`.

    Args:
        folder: where; made if it does not exist.
        images: uint8 [N, S, S, 3].
        masks: label maps uint8 [N, S, S]; code i + 1 is inside the mask `names[i]`.
        provenance: of each image.
        names: the masks to write.

    Returns:
        The table: a row an image, with its files, its seed, and in `empty` the names of masks without a pixel.

    Raises:
        DataError: there are not as many masks and provenances as images.
    """
    if not len(images) == len(masks) == len(provenance):
        raise DataError(f"{len(images)} images, {len(masks)} masks, {len(provenance)} provenances: must be as many")
    folder = Path(folder)
    rows = []
    for index, (image, mask, origin) in enumerate(zip(images, masks, provenance)):
        stem = f"{index:06d}"
        write_image(folder / f"{stem}.png", image, origin)
        row = {"image": f"{stem}.png", "seed": str(origin.seed)}
        empty = []
        for code, name in enumerate(names, start=1):
            inside = mask == code
            row[name] = f"{stem}_{name}.png"
            with replacing_file(folder / row[name]) as temporary:
                Image.fromarray(inside.astype(np.uint8) * np.uint8(255)).save(temporary, format="PNG")
            if not inside.any():
                empty.append(name)
        rows.append({**row, "empty": " ".join(empty)})
    table = folder / "pairs.csv"
    with replacing_file(table) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "seed", *names, "empty"])
        writer.writeheader()
        writer.writerows(rows)
    return table
