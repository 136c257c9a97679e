"""Fundus photographs drawn by a program: disc, vessels, macula, lesions by grade, each with its label map.

The anatomy of eye i depends on (seed, i) alone and is the same at every size.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.phantoms import lesions as les
from medsynth_tf.data.phantoms import myopia
from medsynth_tf.data.phantoms.vessels import VesselTree, grow_tree

MYOPIC = 0.6  # share of patients with pathological myopia, with `labels=myopia`
FIELD = 0.96  # diameter of the field of view over the image's side
_OVERSAMPLING = 2  # lines and outlines are drawn this much larger, then averaged, for smooth edges

_LESION_LABELS = {
    "retina": les.RETINA,
    "optic disc": les.OD,
    "microaneurysm": les.MA,
    "haemorrhage": les.HE,
    "hard exudate": les.EX,
    "soft exudate": les.SE,
    "new vessel": les.NV,
    "IRMA": les.IRMA,
    "outside": les.BACKGROUND,
}
_VESSEL_LABELS = {"retina": 0, "vessel": 1, "bright lesion": 2, "outside": 255}
_STRUCTURE_LABELS = {
    "retina": 0,
    "vessel": 1,
    "optic disc": 2,
    "microaneurysm": 3,
    "haemorrhage": 4,
    "hard exudate": 5,
    "soft exudate": 6,
    "outside": 255,
}
_MYOPIA_LABELS = {"retina": 0, "optic disc": 1, "atrophy": 2, "outside": 255}
_LABELS = {"lesions": _LESION_LABELS, "vessels": _VESSEL_LABELS, "structures": _STRUCTURE_LABELS, "myopia": _MYOPIA_LABELS}
_STRUCTURE_CODES = {les.MA: 3, les.HE: 4, les.EX: 5, les.SE: 6, les.NV: 1, les.IRMA: 1}  # new vessels and IRMA are vessels

# How much of the background's red, green and blue is left under each dark thing, and the colour of each bright one.
_DARK: dict[str | int, tuple[float, float, float]] = {
    "artery": (0.90, 0.66, 0.74),
    "vein": (0.80, 0.50, 0.62),
    les.MA: (0.68, 0.38, 0.5),
    les.HE: (0.56, 0.26, 0.4),
}
_DARK |= {les.NV: (0.80, 0.45, 0.55), les.IRMA: (0.76, 0.45, 0.55)}
_BRIGHT = {les.EX: (1.0, 0.93, 0.55), les.SE: (0.97, 0.86, 0.68)}


@dataclasses.dataclass(frozen=True)
class FundusOptions(Settings):
    """Options of `phantom:fundus`."""

    size: int = setting(128, help="side of the images in pixels", minimum=32, maximum=4096)
    seed: int = setting(0, help="which series of eyes", minimum=0)
    labels: Literal["lesions", "vessels", "structures", "myopia"] = setting(
        "lesions",
        help="label map: disc and lesions as in the semantic_retina paper; vessels and bright lesions as in the demo; vessels, disc "
        "and lesions; or disc and atrophy of eyes without retinopathy, some of them with pathological myopia",
    )


@dataclasses.dataclass(frozen=True)
class _Eye:
    """Anatomy, in diameters of the field of view around its centre."""

    disc: np.ndarray
    fovea: np.ndarray
    disc_radius: float
    tree: VesselTree
    lesions: list[les.Lesion]
    atrophy: myopia.Atrophy | None


class FundusPhantom:
    """Two eyes a patient, right then left, of one complexion and of like severity.

    `label` is the ICDR grade 0 to 4, or with `labels=myopia` 1 for pathological myopia and 0 for none. Label maps, each with 255
    outside: with `labels=lesions` 0 retina, 1 optic disc, 2 microaneurysm, 3 haemorrhage, 4 hard exudate, 5 soft exudate,
    6 new vessel, 7 IRMA; with `labels=vessels` 0 retina, 1 vessel, 2 bright lesion; with `labels=structures` 0 retina, 1 vessel (new
    ones and IRMA among them), 2 optic disc, 3 microaneurysm, 4 haemorrhage, 5 hard exudate, 6 soft exudate; with `labels=myopia`
    0 retina, 1 optic disc, 2 atrophy.
    """

    options_class = FundusOptions

    def __init__(self, options: FundusOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """Two eyes each."""
        return index // 2

    def label(self, index: int) -> int:
        """The grade: the patient's, in two of five eyes one up or down; with `labels=myopia` whether the patient is myopic."""
        if self.options.labels == "myopia":
            return int(numpy_generator(self.options.seed, "fundus/myopia", index // 2).random() < MYOPIC)
        patient_grade = numpy_generator(self.options.seed, "fundus/patient", index // 2).integers(les.GRADES)
        change = numpy_generator(self.options.seed, "fundus/grade", index).choice([0, 0, 0, -1, 1])
        return int(np.clip(patient_grade + change, 0, les.GRADES - 1))

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return _LABELS[self.options.labels]

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 3], `mask` uint8 [size, size], `modality` OP."""
        eye = self._eye(index)
        size = self.options.size
        veins = _line_coverage(size, eye.tree, eye.tree.veins)
        arteries = _line_coverage(size, eye.tree, ~eye.tree.veins)
        vessels = np.maximum(veins, arteries) > 0.4
        if self.options.labels == "vessels":
            mask = _vessel_map(size, eye, vessels)
        elif self.options.labels == "structures":
            mask = _structure_map(size, eye, vessels)
        elif self.options.labels == "myopia":
            mask = _myopia_map(size, eye)
        else:
            mask = _lesion_map(size, eye)
        return {"image": self._photograph(index, eye, veins, arteries), "mask": mask, "modality": "OP"}

    def _eye(self, index: int) -> _Eye:
        rng = numpy_generator(self.options.seed, "fundus/eye", index)
        side = 1.0 if index % 2 == 0 else -1.0  # a right eye's disc is to the right of its fovea
        fovea = np.array([-0.03 * side, 0.0]) + rng.normal(0, 0.015, 2)
        disc = fovea + np.array([0.34 * side, -0.02]) + rng.normal(0, 0.012, 2)
        disc_radius = rng.uniform(0.058, 0.072)
        label = self.label(index)
        tree = grow_tree(rng, disc, fovea, disc_radius)
        lesions, atrophy = [], None
        if self.options.labels != "myopia":
            lesions = les.draw_lesions(rng, label, disc, fovea, disc_radius)
        elif label:
            atrophy = myopia.draw_atrophy(rng, disc, fovea, disc_radius)
        return _Eye(disc, fovea, disc_radius, tree, lesions, atrophy)

    def _photograph(self, index: int, eye: _Eye, veins: np.ndarray, arteries: np.ndarray) -> np.ndarray:
        size = self.options.size
        patient = numpy_generator(self.options.seed, "fundus/complexion", index // 2)
        rng = numpy_generator(self.options.seed, "fundus/photograph", index)
        x, y, inside = _grid(size)

        # Planes first, [3, size, size]: three times as fast to compute with as channels last.
        red = patient.uniform(0.68, 0.88)
        image = np.ones((3, size, size), np.float32) * _planes(
            red, red * patient.uniform(0.38, 0.52), red * patient.uniform(0.14, 0.28)
        )
        light = rng.normal(0, 0.12, 2)
        image *= 1.06 - 0.9 * ((x - light[0]) ** 2 + (y - light[1]) ** 2)
        image *= 1 + _texture(rng, size) * _planes(0.5, 1.0, 0.8)
        macula = np.exp(-((x - eye.fovea[0]) ** 2 + (y - eye.fovea[1]) ** 2) / (2 * 0.055**2))
        image *= 1 - macula * _planes(0.22, 0.42, 0.40) * np.float32(rng.uniform(0.7, 1.1))

        if eye.atrophy is not None:  # below the disc and the vessels
            pale = _step(1 - eye.atrophy.level(x, y), 0.08)
            _blend(image, pale, _planes(*myopia.COLOUR) * np.float32(rng.uniform(0.85, 1.0)), 0.72)
        distance = _disc_distance(size, eye)
        halo = np.exp(-0.5 * (distance / 1.9) ** 2) * np.float32(rng.uniform(0.10, 0.22))
        image *= 1 + halo * _planes(0.6, 1.0, 0.9)
        _blend(image, _step(1 - distance, 0.12), _planes(0.98, 0.80, 0.50) * np.float32(rng.uniform(0.9, 1.02)), 0.88)
        _blend(image, _step(np.float32(rng.uniform(0.35, 0.55)) - distance, 0.12), _planes(1.0, 0.93, 0.72), 0.75)

        image *= 1 - arteries * (1 - _planes(*_DARK["artery"]))
        image *= 1 - veins * (1 - _planes(*_DARK["vein"]))
        for kind in (les.EX, les.HE, les.MA, les.SE, les.NV, les.IRMA):
            shapes = [lesion for lesion in eye.lesions if lesion.kind == kind]
            if shapes:
                coverage = _shape_coverage(size, shapes, blur=0.008 if kind == les.SE else 0.0015)
                if kind in _BRIGHT:
                    _blend(image, coverage, _planes(*_BRIGHT[kind]), 0.85 if kind == les.EX else 0.7)
                else:
                    image *= 1 - coverage * (1 - _planes(*_DARK[kind]))

        image += rng.standard_normal((3, size, size), np.float32) * np.float32(0.008)
        image *= inside
        return np.ascontiguousarray(np.clip(np.rint(image * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _planes(red: float, green: float, blue: float) -> np.ndarray:
    """A colour as float32 [3, 1, 1]."""
    return np.array([red, green, blue], np.float32).reshape(3, 1, 1)


@functools.lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x and y of the pixels' centres in diameters, float32; and 1 within the field of view, soft over a pixel at its edge."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) / FIELD
    x, y = np.meshgrid(axis, axis)
    inside = np.clip((0.5 - np.hypot(x, y)) * size * FIELD + 0.5, 0, 1)
    for array in (x, y, inside):
        array.setflags(write=False)
    return x, y, inside


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth noise over several scales, about ±0.1: choroid and pigment. float32 [size, size]."""
    total = np.zeros((size, size), np.float32)
    for cells, strength in ((4, 0.05), (10, 0.035), (28, 0.02), (64, 0.012)):
        coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32) * np.float32(strength))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    return total


def _step(height: np.ndarray, softness: float) -> np.ndarray:
    """0 below, 1 above, smooth over ± softness."""
    t = np.clip(0.5 + 0.5 * height / softness, 0, 1)
    return t * t * (3 - 2 * t)


def _blend(image: np.ndarray, coverage: np.ndarray, colour: np.ndarray, strength: float) -> None:
    image += np.float32(strength) * coverage * (colour - image)


def _pixels(points: np.ndarray, side: int) -> np.ndarray:
    """Coordinates in diameters as those of an image of `side` pixels."""
    return (points * FIELD + 0.5) * side


def _line_coverage(size: int, tree: VesselTree, chosen: np.ndarray) -> np.ndarray:
    """Share of each pixel that the chosen vessels cover, float32 [size, size]."""
    side = size * _OVERSAMPLING
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    lines = _pixels(tree.points[chosen], side)
    widths = tree.widths[chosen] * FIELD * side
    thickness = np.maximum(1, np.rint(widths)).astype(int).tolist()
    living = np.count_nonzero(widths, axis=1).tolist()
    # A line thinner than a pixel of the canvas is drawn fainter instead.
    tones = np.rint(255 * np.clip(widths[:, 0], 0.5, 1)).astype(int).tolist()
    for line, thick, end, tone in zip(lines, thickness, living, tones):
        corners = line.ravel().tolist()
        pieces = [0, *(step for step in range(1, end - 1) if thick[step] != thick[step - 1]), end - 1]  # one width each
        for first, last in itertools.pairwise(pieces):
            width = thick[first]
            joint = "curve" if width > 3 else None  # gaps at the bends of thinner lines are below a pixel
            draw.line(corners[2 * first : 2 * last + 2], fill=tone, width=width, joint=joint)
    return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255


def _shape_coverage(size: int, shapes: list[les.Lesion], blur: float) -> np.ndarray:
    """Share of each pixel that the lesions cover, blurred by `blur` diameters; float32 [size, size]."""
    side = size * _OVERSAMPLING
    canvas = Image.new("L", (side, side))
    _paint(ImageDraw.Draw(canvas), side, shapes, lambda kind: 255)
    canvas = canvas.reduce(_OVERSAMPLING)
    sigma = blur * FIELD * size
    if sigma > 0.3:  # less is not to be seen
        canvas = canvas.filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(canvas, np.float32) / 255


def _paint(draw: ImageDraw.ImageDraw, side: int, shapes: list[les.Lesion], value) -> None:
    for shape in shapes:
        outline = _pixels(shape.outline, side)
        if shape.width:
            width = max(1, round(shape.width * FIELD * side))
            draw.line(outline.ravel().tolist(), fill=value(shape.kind), width=width)
        else:
            draw.polygon(outline.ravel().tolist(), fill=value(shape.kind))


def _outside(size: int) -> np.ndarray:
    return _grid(size)[2] < 0.5


def _disc_distance(size: int, eye: _Eye) -> np.ndarray:
    """Distance from the optic disc's centre in its radii; discs are a little higher than wide."""
    x, y, _ = _grid(size)
    return np.hypot((x - np.float32(eye.disc[0])) * np.float32(1.08), y - np.float32(eye.disc[1])) / np.float32(eye.disc_radius)


def _lesion_map(size: int, eye: _Eye) -> np.ndarray:
    canvas = Image.fromarray((_disc_distance(size, eye) <= 1).astype(np.uint8) * np.uint8(les.OD))
    _paint(ImageDraw.Draw(canvas), size, eye.lesions, lambda kind: kind)
    return np.where(_outside(size), np.uint8(les.BACKGROUND), np.asarray(canvas))


def _vessel_map(size: int, eye: _Eye, vessels: np.ndarray) -> np.ndarray:
    canvas = Image.new("L", (size, size))
    bright = [lesion for lesion in eye.lesions if lesion.kind in _BRIGHT]
    _paint(ImageDraw.Draw(canvas), size, bright, lambda kind: _VESSEL_LABELS["bright lesion"])
    painted = np.asarray(canvas)
    # Bright lesions lie over vessels in the photograph, so in the map too.
    painted = np.where((painted == 0) & vessels, np.uint8(_VESSEL_LABELS["vessel"]), painted)
    return np.where(_outside(size), np.uint8(_VESSEL_LABELS["outside"]), painted)


def _structure_map(size: int, eye: _Eye, vessels: np.ndarray) -> np.ndarray:
    canvas = Image.fromarray(np.where(vessels, 1, np.where(_disc_distance(size, eye) <= 1, 2, 0)).astype(np.uint8))
    _paint(ImageDraw.Draw(canvas), size, eye.lesions, _STRUCTURE_CODES.__getitem__)
    return np.where(_outside(size), np.uint8(_STRUCTURE_LABELS["outside"]), np.asarray(canvas))


def _myopia_map(size: int, eye: _Eye) -> np.ndarray:
    x, y, _ = _grid(size)
    mask = np.zeros((size, size), np.uint8)
    if eye.atrophy is not None:
        mask[eye.atrophy.level(x, y) <= 1] = _MYOPIA_LABELS["atrophy"]
    mask[_disc_distance(size, eye) <= 1] = _MYOPIA_LABELS["optic disc"]
    return np.where(_outside(size), np.uint8(_MYOPIA_LABELS["outside"]), mask)
