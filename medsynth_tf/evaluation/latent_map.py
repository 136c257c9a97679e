"""Where styles lie in the latent space: the two main directions of their codes, which are far too long for a covariance matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.evaluation.sheets import PALETTE

_SIDE, _MARGIN, _RADIUS = 420, 40, 4
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


class LatentMap:
    """Principal components of a few reference codes, from their Gram matrix: of n codes of length d it is n×n, whatever d.

    Args:
        reference: float [n, d]; a code is all its maps, flattened, one after the other.
        components: how many directions, fewer than n.

    Raises:
        DataError: too few codes for that.
    """

    def __init__(self, reference: np.ndarray, components: int = 2):
        if len(reference) <= components:
            raise DataError(f"{components} directions need {components + 1} codes at least, got {len(reference)}")
        self.mean = reference.mean(0)
        centred = reference - self.mean
        values, vectors = np.linalg.eigh(np.asarray(centred @ centred.T, np.float64))
        chosen = np.argsort(values)[::-1][:components]
        lengths = np.sqrt(np.maximum(values[chosen], np.finfo(np.float64).tiny))
        self.directions = centred.T @ (vectors[:, chosen] / lengths).astype(centred.dtype)  # [d, components], of length 1

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """float [m, d] → coordinates [m, components]."""
        return (codes - self.mean) @ self.directions


def flattened_codes(answer: Mapping[str, np.ndarray]) -> np.ndarray:
    """code_1 [B, h, w, C] … code_n as float32 [B, d]."""
    names = sorted(answer, key=lambda name: int(name.rpartition("_")[2]))
    return np.concatenate([np.asarray(answer[name]).reshape(len(answer[name]), -1) for name in names], axis=1)


def write_scatter(path: str | Path, title: str, points: np.ndarray, labels: Sequence[int]) -> Path:
    """Draws points [N, 2] in the colours of their labels as a PNG."""
    picture = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    low, high = points.min(0), points.max(0)
    places = _MARGIN + (points - low) / np.maximum(high - low, 1e-9) * (_SIDE - 2 * _MARGIN)
    draw.text((8, 8), title, _INK, font)
    kinds = sorted(set(labels))
    for (x, y), label in zip(places, labels):
        colour = tuple(int(v) for v in PALETTE[1 + kinds.index(label) % (len(PALETTE) - 1)])
        draw.ellipse((x - _RADIUS, _SIDE - y - _RADIUS, x + _RADIUS, _SIDE - y + _RADIUS), colour, _INK)
    path = Path(path)
    with replacing_file(path) as temporary:
        picture.save(temporary, format="PNG")
    return path
