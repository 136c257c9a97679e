"""The plot of Bland and Altman (Lancet, 1986): what two measurements of the same differ by, against their mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medsynth_tf.core.files import replacing_file

_SIZE, _SCALE = (560, 320), 2  # drawn twice as large, then averaged
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 30, 90, 40
_INK, _GRID, _LIMIT, _POINT = (40, 40, 40), (225, 225, 225), (176, 0, 32), (0, 90, 160)


def write_bland_altman(path: str | Path, title: str, unit: str, found: Mapping[str, Any]) -> Path:
    """Draws the points, the bias and the limits of agreement as a PNG.

    Args:
        path: the PNG.
        title: above it.
        unit: of both axes.
        found: as `metrics.segmentation_agreement.bland_altman` returns.
    """
    mean, difference = np.asarray(found["mean"]), np.asarray(found["difference"])
    lines = {"mean": found["bias"], "+1.96 SD": found["upper"], "-1.96 SD": found["lower"]}
    reach = max(1e-9, float(np.abs([*difference, *lines.values()]).max())) * 1.1
    first, last = float(mean.min()), float(mean.max())
    margin = 0.05 * (last - first) or 1.0
    first, last = first - margin, last + margin
    left, right = _LEFT * _SCALE, (_SIZE[0] - _RIGHT) * _SCALE
    top, bottom = _TOP * _SCALE, (_SIZE[1] - _BOTTOM) * _SCALE
    picture = Image.new("RGB", (_SIZE[0] * _SCALE, _SIZE[1] * _SCALE), (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11 * _SCALE)

    def height(value: float) -> float:
        return (top + bottom) / 2 - value / reach * (bottom - top) / 2

    draw.text((left, 8 * _SCALE), title, _INK, font)
    for value in (-reach, 0.0, reach):
        draw.line([left, height(value), right, height(value)], _GRID, _SCALE)
        draw.text((left - 6 * _SCALE, height(value)), f"{value:.3g}", _INK, font, anchor="rm")
    for name, value in lines.items():
        draw.line([left, height(value), right, height(value)], _INK if name == "mean" else _LIMIT, _SCALE)
        draw.text((right + 4 * _SCALE, height(value)), f"{name} {value:.3g}", _INK, font, anchor="lm")
    for x, y in zip(left + (mean - first) / (last - first) * (right - left), map(height, difference)):
        draw.ellipse([x - 3 * _SCALE, y - 3 * _SCALE, x + 3 * _SCALE, y + 3 * _SCALE], outline=_POINT, width=_SCALE)
    below = bottom + 6 * _SCALE
    draw.text((left, below), f"{first + margin:.3g}", _INK, font)
    draw.text((right, below), f"{last - margin:.3g}", _INK, font, anchor="ra")
    draw.text(((left + right) / 2, below), f"mean of both, {unit}", _INK, font, anchor="ma")
    path = Path(path)
    with replacing_file(path) as temporary:
        picture.reduce(_SCALE).save(temporary, format="PNG")
    return path
