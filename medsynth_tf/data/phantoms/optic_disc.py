"""The plainest fundus: a lit circle, six vessels and an optic disc, in some eyes with a crescent of atrophy beside the disc.

For methods that make an image and its mask together: the disc can be found again in the photograph by brightness alone
(`bright_disc`), so whether image and mask belong together can be measured without any learning. Lengths are in 64ths of the side.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.records import OUTSIDE

RETINA, DISC, ATROPHY = 0, 1, 2
_FIELD_RADIUS = 30.0
_DISC_COLOUR = np.array([0.95, 0.85, 0.55], np.float32)
_ATROPHY_COLOUR = np.array([0.88, 0.50, 0.38], np.float32)
_VESSELS = 6
_VESSEL_SHADE = 0.65  # of the background's brightness
_VESSEL_WIDTH = 1.2
_EDGE = 0.8  # over this much the disc's edge goes from retina to disc
_NOISE = 0.02
_OVERSAMPLING = 4  # vessels are drawn this much larger, then averaged
_FOUND_ABOVE = 0.6  # green of the disc is 0.85, of the retina at most 0.38, of atrophy 0.5


@dataclasses.dataclass(frozen=True)
class OpticDiscOptions(Settings):
    """Options of `phantom:optic_disc`."""

    size: int = setting(32, help="side of the images in pixels", minimum=16, maximum=1024)
    seed: int = setting(0, help="which series of eyes", minimum=0)
    atrophy: float = setting(
        0.0, help="share of eyes with atrophy beside the disc; these have label 1", minimum=0.0, maximum=1.0
    )


class OpticDiscPhantom:
    """Draws `phantom:optic_disc`: labels 0 retina, 1 optic disc, 2 atrophy, 255 outside the field of view."""

    options_class = OpticDiscOptions

    def __init__(self, options: OpticDiscOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """Each eye is another patient's."""
        return index

    def label(self, index: int) -> int:
        """1 for an eye with atrophy, else 0."""
        return int(numpy_generator(self.options.seed, "optic_disc/atrophy", index).uniform() < self.options.atrophy)

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"retina": RETINA, "optic disc": DISC, "atrophy": ATROPHY, "outside": OUTSIDE}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [S, S, 3], `mask` uint8 [S, S], `modality`."""
        rng = numpy_generator(self.options.seed, "optic_disc/eye", index)
        size = self.options.size
        x, y = _grid(size)
        side = rng.choice((-1.0, 1.0))
        centre = np.array([side * rng.uniform(8, 16), rng.uniform(-6, 6)])
        radii = rng.uniform(4.5, 6.5, 2)
        base = np.array([rng.uniform(0.55, 0.75), rng.uniform(0.25, 0.38), rng.uniform(0.10, 0.18)], np.float32)
        distance_from_middle = np.hypot(x, y)
        image = base * (1.0 - 0.25 * (distance_from_middle / _FIELD_RADIUS) ** 2)[..., None]
        image *= 1.0 - (1.0 - _VESSEL_SHADE) * _vessels(rng, size, centre)[..., None]

        distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])  # 1 on the disc's edge
        atrophy = np.zeros(distance.shape, bool)
        if self.label(index):
            wide = rng.uniform(1.3, 1.7)
            shift = side * rng.uniform(0.35, 0.6) * radii[0]  # towards the macula: atrophy begins on the temporal side
            around = np.hypot((x - centre[0] + shift) / radii[0], (y - centre[1]) / radii[1]) / wide
            coverage = _soft(around, wide * radii.mean())
            image += coverage[..., None] * (_ATROPHY_COLOUR - image)
            atrophy = around <= 1
        coverage = _soft(distance, radii.mean())
        image += coverage[..., None] * (_DISC_COLOUR - image)
        image += rng.normal(0, _NOISE, image.shape)
        inside = distance_from_middle <= _FIELD_RADIUS
        image *= inside[..., None]

        mask = np.where(distance <= 1, np.uint8(DISC), np.where(atrophy, np.uint8(ATROPHY), np.uint8(RETINA)))
        mask = np.where(inside, mask, np.uint8(OUTSIDE))
        return {"image": np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), "mask": mask, "modality": "OP"}


def bright_disc(images: np.ndarray) -> np.ndarray:
    """The disc of phantom photographs found in their colours alone: lightly blurred green above 0.6.

    Args:
        images: uint8 [N, S, S, 3].

    Returns:
        bool [N, S, S].
    """
    green = np.asarray(images)[..., 1].astype(np.float32) / 255
    blur = 0.5 * images.shape[1] / 32
    return ndimage.gaussian_filter(green, (0, blur, blur)) > _FOUND_ABOVE


def _soft(distance: np.ndarray, radius: float) -> np.ndarray:
    """1 inside, 0 outside, linear over the edge; `distance` is in radii."""
    return np.clip(0.5 + (1 - distance) * radius / _EDGE, 0, 1)


@functools.lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixels' centres from the middle of the image."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (64.0 / size) - 32.0
    x, y = np.meshgrid(axis, axis)
    for array in (x, y):
        array.setflags(write=False)
    return x, y


def _vessels(rng: np.random.Generator, size: int, start: np.ndarray) -> np.ndarray:
    """Share of each pixel that six curves from the disc outwards cover, [S, S]."""
    angles = 2 * np.pi * (np.arange(_VESSELS) + rng.uniform(-0.3, 0.3, _VESSELS)) / _VESSELS
    bends = rng.uniform(-0.7, 0.7, _VESSELS)
    t = np.linspace(0, 1, 24)[:, None]
    headings = angles + bends * t
    points = start + 46 * t[..., None] * np.stack([np.cos(headings), np.sin(headings)], -1)  # [step, vessel, 2]
    scale = size * _OVERSAMPLING / 64
    canvas = Image.new("L", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for curve in ((points + 32) * scale).transpose(1, 0, 2).reshape(_VESSELS, -1).tolist():
        draw.line(curve, fill=255, width=max(1, round(_VESSEL_WIDTH * scale)), joint="curve")
    return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255
