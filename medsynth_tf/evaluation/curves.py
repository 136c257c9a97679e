"""Loss curves from a run's `log.csv`: a column `step`, and one a loss."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file

_PANEL = (360, 210)
_MARGIN = (58, 26, 12, 24)  # left, top, right, bottom
_COLUMNS = 3
_INK, _GRID, _LINE, _FAINT = (40, 40, 40), (225, 225, 225), (0, 90, 160), (170, 200, 225)
_OVERSAMPLING = 2


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """Columns of a CSV log: `step` int64 and the others float64, one number a row; empty cells are NaN.

    Columns that hold anything but numbers are left out. Of rows with the same step, as a resumed run may have written, the
    last counts.

    Raises:
        DataError: the file cannot be read, has no column `step`, no rows, or a step that is no integer.
    """
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            rows = list(reader)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read log {path}: {error}") from error
    if "step" not in names:
        raise DataError(f"log {path}: no column 'step'; columns: {', '.join(names) or 'none'}")
    by_step: dict[int, dict[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            by_step[int(float(row["step"]))] = row
        except (TypeError, ValueError) as error:
            raise DataError(f"log {path}, line {number}: step '{row['step']}' is not an integer") from error
    if not by_step:
        raise DataError(f"log {path}: no rows")
    steps = sorted(by_step)
    columns = {"step": np.array(steps, np.int64)}
    for name in names:
        if name == "step":
            continue
        try:
            columns[name] = np.array([float(by_step[step][name] or "nan") for step in steps])
        except (TypeError, ValueError):
            continue
    return columns


def write_curves(path: str | Path, log: dict[str, np.ndarray]) -> Path:
    """Draws one panel a loss, raw and smoothed, as a PNG.

    Args:
        path: the PNG.
        log: as from `read_log`.

    Raises:
        DataError: there is no loss with a finite value.
    """
    names = [name for name in log if name != "step" and np.isfinite(log[name]).any()]
    if not names:
        raise DataError("loss curves: the log has no column with a finite number")
    scale = _OVERSAMPLING
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    picture = Image.new("RGB", (columns * _PANEL[0] * scale, rows * _PANEL[1] * scale), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(names):
        origin = (number % columns * _PANEL[0], number // columns * _PANEL[1])
        _draw_panel(draw, origin, name, log["step"], log[name])
    path = Path(path)
    with replacing_file(path) as temporary:
        picture.reduce(scale).save(temporary, format="PNG")
    return path


def _draw_panel(draw: ImageDraw.ImageDraw, origin: tuple[int, int], name: str, steps: np.ndarray, values: np.ndarray) -> None:
    scale = _OVERSAMPLING
    left, top = origin[0] + _MARGIN[0], origin[1] + _MARGIN[1]
    right, bottom = origin[0] + _PANEL[0] - _MARGIN[2], origin[1] + _PANEL[1] - _MARGIN[3]
    font = ImageFont.load_default(11 * scale)
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    low, high = float(values.min()), float(values.max())
    if high == low:
        low, high = low - 0.5, high + 0.5
    first, last = int(steps[0]), max(int(steps[-1]), int(steps[0]) + 1)

    def place(x: np.ndarray, y: np.ndarray) -> list[float]:
        across = left + (x - first) / (last - first) * (right - left)
        down = bottom - (y - low) / (high - low) * (bottom - top)
        return (np.stack([across, down], -1) * scale).ravel().tolist()

    draw.text((left * scale, (origin[1] + 6) * scale), name, _INK, font)
    for share in (0.0, 0.5, 1.0):
        y = (bottom - share * (bottom - top)) * scale
        draw.line([left * scale, y, right * scale, y], _GRID, scale)
        draw.text(((left - 6) * scale, y), f"{low + share * (high - low):.3g}", _INK, font, anchor="rm")
    draw.text((left * scale, (bottom + 6) * scale), str(first), _INK, font)
    draw.text((right * scale, (bottom + 6) * scale), f"step {last}", _INK, font, anchor="ra")
    if len(steps) == 1:
        x, y = place(steps, values)
        draw.ellipse([x - 2 * scale, y - 2 * scale, x + 2 * scale, y + 2 * scale], _LINE)
        return
    draw.line(place(steps, values), _FAINT, scale)
    draw.line(place(steps, _smoothed(values)), _LINE, 2 * scale)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over a twentieth of the curve, over what there is of it at the ends."""
    window = np.ones(2 * (len(values) // 40) + 1)
    return np.convolve(values, window, mode="same") / np.convolve(np.ones(len(values)), window, mode="same")
