"""PNG, TIFF, GIF, JPEG and BMP through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers.common import check_size, one_line, opened, stored_type

_DIRECT = ("L", "RGB", "I;16", "I;16B", "I;16L", "I", "F")  # modes whose arrays are the values themselves


def read_raster(path: str | Path, palette_indices: bool = False) -> dict[str, Any]:
    """Reads a raster file: `image` [H, W, C], or [D, H, W, C] for several pages of one size.

    Values are kept as stored: 8 bits as uint8, 16 as uint16, 32-bit float as float32, bilevel as 0 and 255. Palettes become
    RGB, or stay indices with `palette_indices`. Alpha is dropped, not blended: pixels under it keep the colour in the file.
    CMYK, YCbCr and Lab become RGB. Photographs are turned the way their EXIF orientation says. Everything else in the file
    (EXIF, GPS position, text) is dropped.

    Raises:
        DataError: the file is damaged, too large, or its pages differ in size.
    """
    path = Path(path)
    try:
        with opened(path) as file, Image.open(file) as image:
            check_size((getattr(image, "n_frames", 1), image.height, image.width), path)
            pages = [_values(page, palette_indices) for page in ImageSequence.Iterator(image)]
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that can be read (damaged, or the suffix is wrong)") from error
    # Pillow raises these for damaged files of one format or another, and for more than 179 million pixels.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded: {one_line(error)}") from error
    if len({page.shape for page in pages}) > 1:
        raise DataError(f"{path}: {len(pages)} pages of different sizes: {sorted({page.shape for page in pages})}")
    values = pages[0] if len(pages) == 1 else np.stack(pages)
    return {"image": stored_type(values, path)}


def _values(page: Image.Image, palette_indices: bool) -> np.ndarray:
    """One page as [H, W, C]."""
    page = ImageOps.exif_transpose(page)
    if page.mode == "P" and palette_indices:
        values = np.asarray(page)
    elif page.mode == "1":
        values = np.asarray(page, np.uint8) * np.uint8(255)
    elif page.mode in _DIRECT:
        values = np.asarray(page)
    elif page.mode in ("LA", "La"):
        values = np.asarray(page)[..., :1]
    elif page.mode in ("RGBA", "RGBX"):
        values = np.asarray(page)[..., :3]
    else:
        values = np.asarray(page.convert("RGB"))
    if values.dtype == np.int32 and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16)  # Pillow opens 16-bit PNG as 32-bit integers in some versions
    return values if values.ndim == 3 else values[..., np.newaxis]
