"""Cardiac magnetic resonance views in outline: short axis, four-chamber, two-chamber and flow; few in shape, many in appearance.

For sorting without labels: contrast, brightness, coil shading and position vary more than what tells the views apart.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

VIEWS = ("short axis", "four-chamber", "two-chamber", "flow")
IMBALANCED = (0.6, 0.25, 0.1, 0.05)
_REFERENCE = 40.0  # lengths below are in pixels of an image of this side
_UNIT = 1000.0  # stored value of intensity 1
_MYOCARDIUM, _BLOOD = 1, 2


@dataclasses.dataclass(frozen=True)
class CardiacViewsOptions(Settings):
    """Options of `phantom:cardiac_views`."""

    size: int = setting(40, help="side of the images in pixels", minimum=16, maximum=1024)
    seed: int = setting(0, help="which series of images", minimum=0)
    balance: Literal["even", "imbalanced"] = setting(
        "even", help="views in turn, or drawn with shares .6, .25, .1 and .05 of short axis, four-chamber, two-chamber, flow"
    )


class CardiacViewsPhantom:
    """One image a patient; the label is the view.

    Image uint16 [size, size, 1]. Label map: 0 background, 1 myocardium, 2 blood.
    """

    options_class = CardiacViewsOptions

    def __init__(self, options: CardiacViewsOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One image each."""
        return index

    def label(self, index: int) -> int:
        """The view, 0 … 3."""
        if self.options.balance == "even":
            return index % len(VIEWS)
        return int(numpy_generator(self.options.seed, "cardiac view", index).choice(len(VIEWS), p=IMBALANCED))

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"background": 0, "myocardium": _MYOCARDIUM, "blood": _BLOOD}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint16 [size, size, 1], `mask` uint8 [size, size]."""
        rng = numpy_generator(self.options.seed, "cardiac_views", index)
        size = self.options.size
        scale = size / _REFERENCE
        axis = (np.arange(size) - (size - 1) / 2) / scale
        centre, zoom, angle = rng.normal(0.0, 1.5, 2), rng.uniform(0.85, 1.2), rng.normal(0.0, 0.25)
        y, x = np.meshgrid(axis - centre[0], axis - centre[1], indexing="ij")
        along, across = (y * np.cos(angle) - x * np.sin(angle)) / zoom, (y * np.sin(angle) + x * np.cos(angle)) / zoom
        image = 0.25 + 0.05 * _unit_deviation(ndimage.gaussian_filter(rng.normal(size=(size, size)), 3.0 * scale))
        mask = np.zeros((size, size), np.uint8)
        blood, myocardium = rng.uniform(0.75, 0.95), rng.uniform(0.4, 0.5)
        for kind, distance in _VIEWS[self.label(index)](rng, along, across):
            cover = 1.0 / (1.0 + np.exp(np.clip(4.0 * distance, -60, 60)))
            image = image * (1 - cover) + cover * (blood if kind == _BLOOD else myocardium)
            mask[distance <= 0] = kind
        slope = rng.normal(0.0, 0.15, 2)
        side = 2.0 * (np.arange(size) / (size - 1)) - 1.0
        image = image * (1.0 + slope[0] * side[:, np.newaxis] + slope[1] * side)
        image = image * rng.uniform(0.6, 1.4) + rng.uniform(-0.1, 0.2) + rng.normal(0.0, 0.04, image.shape)
        return {"image": np.rint(_UNIT * np.clip(image, 0.0, 4.0)).astype(np.uint16)[..., np.newaxis], "mask": mask}


Shape = tuple[int, np.ndarray]


def _short_axis(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> list[Shape]:
    """Left ventricle as a ring, before the crescent of the right one."""
    return [
        (_BLOOD, _ellipse(y, x, (0.0, -8.0), (8.0, 6.0))),
        (_MYOCARDIUM, np.hypot(y, x) - 9.0),
        (_BLOOD, np.hypot(y, x) - 6.0),
    ]


def _four_chamber(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> list[Shape]:
    """Two ventricles above two atria, thin walls between them."""
    chambers = [((-5.0, -5.5), (7.0, 4.0)), ((-5.0, 5.5), (7.0, 4.5)), ((7.5, -5.5), (4.5, 4.5)), ((7.5, 5.5), (4.5, 4.5))]
    walls = [(_MYOCARDIUM, _ellipse(y, x, place, (a + 1.5, b + 1.5))) for place, (a, b) in chambers]
    return walls + [(_BLOOD, _ellipse(y, x, place, radii)) for place, radii in chambers]


def _two_chamber(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> list[Shape]:
    """A long left ventricle above its atrium."""
    return [
        (_MYOCARDIUM, _ellipse(y, x, (-3.0, 0.0), (11.0, 7.0))),
        (_BLOOD, _ellipse(y, x, (-3.0, 0.0), (9.0, 4.5))),
        (_BLOOD, _ellipse(y, x, (11.0, 0.0), (4.5, 6.0))),
    ]


def _flow(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> list[Shape]:
    """Aorta and pulmonary artery in cross-section, and three small vessels."""
    shapes = [(_BLOOD, np.hypot(y + 3.0, x + 3.0) - 4.5), (_BLOOD, np.hypot(y - 4.0, x - 5.0) - 3.5)]
    for turn in rng.uniform(0.0, 2 * np.pi, 3):
        shapes.append((_BLOOD, np.hypot(y - 12.0 * np.sin(turn), x - 12.0 * np.cos(turn)) - 1.5))
    return shapes


_VIEWS = (_short_axis, _four_chamber, _two_chamber, _flow)


def _ellipse(y: np.ndarray, x: np.ndarray, place: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """About the signed distance to an ellipse, below 0 inside."""
    return (np.hypot((y - place[0]) / radii[0], (x - place[1]) / radii[1]) - 1.0) * min(radii)


def _unit_deviation(field: np.ndarray) -> np.ndarray:
    return field / field.std()
