"""T1-like axial slices through a head at the height of the lateral ventricles, whose size depends on the class.

Class 0 are controls, class 1 are patients with wide ventricles and wide sulci, as in Alzheimer's disease. The classes overlap.
Lengths are in units of half the image's height, so that images of any size show the same head.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

BACKGROUND, SCALP, CSF, GREY, WHITE = 0, 1, 2, 3, 4
_SHADES = {"scalp": 0.85, "skull": 0.08, CSF: 0.14, GREY: 0.5, WHITE: 0.76}
_SKULL = 0.93  # radius at which the scalp ends
_BRAIN = 0.84  # and at which the brain of a control begins
_NOISE = 0.02
VENTRICLES = ((0.85, 0.15), (1.35, 0.2))  # mean and deviation of the ventricles' scale, by class
SULCI = ((0.035, 0.01), (0.075, 0.015))  # and of the width of the CSF around the brain


@dataclasses.dataclass(frozen=True)
class BrainSlicesOptions(Settings):
    """Options of `phantom:brain_slices`."""

    size: int = setting(64, help="height of the images in pixels", minimum=16, maximum=1024)
    width: int | None = setting(None, help="their width; default: the height", minimum=16, maximum=1024)
    seed: int = setting(0, help="which series of heads", minimum=0)
    patients: float = setting(0.5, help="share of patients, label 1; the others are controls", minimum=0.0, maximum=1.0)
    masked: bool = setting(True, help="the brain alone on black; else with skull and scalp")


class BrainSlicesPhantom:
    """One slice a person. Label map: 0 background, 1 scalp and skull, 2 cerebrospinal fluid, 3 grey matter, 4 white matter."""

    options_class = BrainSlicesOptions

    def __init__(self, options: BrainSlicesOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One slice each."""
        return index

    def label(self, index: int) -> int:
        """1 for patients, in even turns."""
        share = self.options.patients
        return int((index + 1) * share + 1e-9) - int(index * share + 1e-9)

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"background": BACKGROUND, "scalp": SCALP, "fluid": CSF, "grey matter": GREY, "white matter": WHITE}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [H, W, 1], `mask` uint8 [H, W], `modality` MR."""
        rng = numpy_generator(self.options.seed, "brain_slices", index)
        label = self.label(index)
        height, width = self.options.size, self.options.width or self.options.size
        y, x = _grid(height, width)
        edge = 2.2 / height  # over this much one tissue goes over into the next

        tilt, shift = rng.normal(0, 0.03), rng.uniform(-0.025, 0.025, 2)
        y, x = y - shift[0] + tilt * x, (x - shift[1] - tilt * y) / rng.uniform(0.76, 0.86)
        y, x = y / 0.92, x / 0.92
        radius, angle = np.hypot(y, x), np.arctan2(x, y)
        outline = 1.0 + 0.015 * np.cos(2 * angle + rng.uniform(0, 2 * np.pi)) + 0.01 * np.cos(3 * angle)
        radius = radius / outline

        fluid_width = max(0.01, rng.normal(*SULCI[label]))
        folds = 0.5 + 0.5 * np.cos(rng.integers(13, 18) * angle + 2.0 * np.sin(3 * angle + rng.uniform(0, 2 * np.pi)))
        brain = _BRAIN - fluid_width * (0.3 + 1.7 * folds**4)
        white = brain - 0.13 - 0.05 * np.cos(rng.integers(13, 18) * angle + rng.uniform(0, 2 * np.pi))
        fissure = 0.012 + 0.25 * fluid_width  # between the hemispheres, in front and behind
        apart = np.where(np.abs(y) < 0.42, np.abs(x) + 0.5, np.abs(x) - fissure)

        scale = float(np.clip(rng.normal(*VENTRICLES[label]), 0.4, 2.0))
        ventricles = _ventricles(rng, x, y, scale)

        shares = {
            "head": _below(radius - 1.0, edge),
            "inner": _below(radius - _SKULL, edge),
            CSF: _below(radius - (_SKULL - 0.05), edge),
            GREY: _below(np.maximum(radius - brain, -apart), edge),
            WHITE: _below(np.maximum(radius - white, -(apart - 0.07)), edge),
        }
        hollow = _below(ventricles, edge)
        image = np.zeros_like(radius)
        if not self.options.masked:
            image += shares["head"] * (_SHADES["scalp"] - image)
            image += shares["inner"] * (_SHADES["skull"] - image)
        inside = shares[CSF] if not self.options.masked else _below(radius - _BRAIN, edge)
        for tissue, share in ((CSF, inside), (GREY, shares[GREY]), (WHITE, shares[WHITE])):
            image = image + share * (_SHADES[tissue] - image)
        image = image + hollow * (_SHADES[CSF] - image)
        slope = rng.uniform(0, 2 * np.pi)
        image = image * rng.uniform(0.93, 1.07) * (1.0 + 0.06 * (x * np.cos(slope) + y * np.sin(slope)))
        noisy = np.hypot(image + rng.normal(0, _NOISE, image.shape), rng.normal(0, _NOISE, image.shape))
        image = np.where(inside > 0, noisy, 0.0) if self.options.masked else noisy

        mask = np.zeros(radius.shape, np.uint8)
        if not self.options.masked:
            mask[shares["head"] > 0.5] = SCALP
        mask[inside > 0.5] = CSF
        mask[shares[GREY] > 0.5] = GREY
        mask[shares[WHITE] > 0.5] = WHITE
        mask[hollow > 0.5] = CSF
        return {
            "image": np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)[..., np.newaxis],
            "mask": mask,
            "modality": "MR",
        }


def _ventricles(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Signed distance, roughly, to the two lateral ventricles; below 0 inside. Their area goes with the square of `scale`."""
    grown = scale**0.5
    distance = np.full(x.shape, np.inf)
    for side in (-1.0, 1.0):
        lateral = side * x
        size = scale * rng.uniform(0.92, 1.08)
        for centre, half_axes, turn in (
            ((-0.17, 0.11), (0.20, 0.050), 0.35),  # frontal horn: forwards and outwards
            ((0.16, 0.15), (0.24, 0.065), -0.45),  # body and trigone: backwards and outwards
        ):
            dy, dx = y - grown * centre[0], lateral - (0.4 + 0.6 * grown) * centre[1]
            along, across = dy * np.cos(turn) - dx * np.sin(turn), dx * np.cos(turn) + dy * np.sin(turn)
            long, short = half_axes[0] * grown, half_axes[1] * size**1.5
            distance = np.minimum(distance, (np.hypot(along / long, across / short) - 1.0) * short)
    return distance


def _below(distance: np.ndarray, edge: float) -> np.ndarray:
    """1 where a distance is below 0, 0 where it is above, linear over the edge."""
    return np.clip(0.5 - distance / edge, 0.0, 1.0)


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixels' centres, from -1 to 1 over the height; a unit is the same number of pixels in both."""
    half = height / 2
    y, x = np.meshgrid((np.arange(height) + 0.5 - half) / half, (np.arange(width) + 0.5 - width / 2) / half, indexing="ij")
    for array in (x, y):
        array.setflags(write=False)
    return y, x
