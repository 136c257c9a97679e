"""Eyes whose grade shows in colour alone: where vessels, disc and lesions lie says nothing of it.

For claims on grading manipulation: a generator that is not told the grade cannot know it from the masks. Image i depends on (seed, i)
alone and shows the same at every size.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

SIDE = 64  # lengths below are pixels of an image of this side
FIELD_RADIUS, DISC_RADIUS = 30.0, 5.0
VESSELS, VESSEL_WIDTH, VESSEL_TONE = 5, 2.0, 0.6
DISC_COLOUR = (0.95, 0.85, 0.55)
BACKGROUNDS = ((0.70, 0.32, 0.14), (0.62, 0.28, 0.16), (0.66, 0.36, 0.22))  # by grade
LESION_COLOURS = ((0.95, 0.85, 0.30), (0.55, 0.10, 0.10), (0.85, 0.85, 0.80))  # by grade
COLOUR_DEVIATION, SHADING, BLUR, NOISE = 0.03, 0.2, 0.6, 0.02
GRADES = len(BACKGROUNDS)
LABELS = {"retina": 0, "vessel": 1, "optic disc": 2, "lesion": 3, "outside": 255}


@dataclasses.dataclass(frozen=True)
class GradedLesionsOptions(Settings):
    """Options of `phantom:graded_lesions`."""

    size: int = setting(SIDE, help="side of the images in pixels", minimum=32, maximum=1024)
    seed: int = setting(0, help="which series of eyes", minimum=0)


class GradedLesionsPhantom:
    """One eye a patient; `label` is the grade, 0 to 2, each a third of the images.

    Label maps: 0 retina, 1 vessel, 2 optic disc, 3 lesion, 255 outside the field of view.
    """

    options_class = GradedLesionsOptions

    def __init__(self, options: GradedLesionsOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One eye each."""
        return index

    def label(self, index: int) -> int:
        """The grade: each triple of images has one of each, in an order of its own."""
        order = numpy_generator(self.options.seed, "graded_lesions/grades", index // GRADES).permutation(GRADES)
        return int(order[index % GRADES])

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return LABELS

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, size, 3], `mask` uint8 [size, size], `modality` OP."""
        size = self.options.size
        anatomy = numpy_generator(self.options.seed, "graded_lesions/anatomy", index)
        axis = (np.arange(size) + 0.5) * (SIDE / size)
        rows, columns = np.meshgrid(axis, axis, indexing="ij")
        pixel = SIDE / size

        def covered(distance: np.ndarray, radius: float) -> np.ndarray:  # share of each pixel, soft over a pixel at the edge
            return np.clip((radius - distance) / pixel + 0.5, 0.0, 1.0)

        def distance_to(points: np.ndarray) -> np.ndarray:
            return np.sqrt(((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).min(-1))

        side = anatomy.choice([-1.0, 1.0])
        disc = np.array([SIDE / 2 + anatomy.uniform(-3, 3), SIDE / 2 + side * anatomy.uniform(15, 19)])
        vessel = covered(distance_to(_vessels(anatomy, disc, side)), VESSEL_WIDTH / 2)
        disc_cover = covered(distance_to(disc[None]), DISC_RADIUS)
        centres, radii = _lesions(anatomy, disc)
        lesion = np.max([covered(distance_to(centre[None]), radius) for centre, radius in zip(centres, radii)], axis=0)
        from_centre = np.hypot(rows - SIDE / 2, columns - SIDE / 2)

        look = numpy_generator(self.options.seed, "graded_lesions/look", index)
        grade = self.label(index)
        background = np.array(BACKGROUNDS[grade]) + look.normal(0, COLOUR_DEVIATION, 3)
        spots = np.array(LESION_COLOURS[grade]) + look.normal(0, COLOUR_DEVIATION, 3)
        image = background * (1.0 - SHADING * (from_centre / FIELD_RADIUS) ** 2)[..., None]
        image *= 1.0 - (1.0 - VESSEL_TONE) * vessel[..., None]
        for cover, colour in ((disc_cover, np.array(DISC_COLOUR)), (lesion, spots)):
            image += cover[..., None] * (colour - image)
        image = ndimage.gaussian_filter(image, (BLUR / pixel, BLUR / pixel, 0)) + look.normal(0, NOISE, image.shape)
        image *= covered(from_centre, FIELD_RADIUS)[..., None]

        mask = np.zeros([size, size], np.uint8)
        for name, cover in (("vessel", vessel), ("optic disc", disc_cover), ("lesion", lesion)):
            mask[cover >= 0.5] = LABELS[name]
        mask[from_centre > FIELD_RADIUS] = LABELS["outside"]
        return {"image": np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), "mask": mask, "modality": "OP"}


def _vessels(rng: np.random.Generator, disc: np.ndarray, side: float) -> np.ndarray:
    """Points (row, column) along curved lines that leave the disc towards the other side."""
    steps = np.linspace(0.0, 46.0, 70)
    lines = []
    for start in np.linspace(-1.1, 1.1, VESSELS) + rng.normal(0, 0.1, VESSELS):
        heading = start + rng.uniform(-0.5, 0.5) * steps / steps[-1] - np.sign(start) * 0.4 * steps / steps[-1]
        heading = heading + 0.25 * np.sin(steps / rng.uniform(4, 7) + rng.uniform(0, 2 * np.pi))
        moves = np.stack([np.sin(heading), -side * np.cos(heading)], -1) * (steps[1] - steps[0])
        lines.append(disc + np.cumsum(moves, 0))
    return np.concatenate(lines)


def _lesions(rng: np.random.Generator, disc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [N, 2] and radii [N] of two to five spots within the field, clear of the disc and of one another."""
    wanted = rng.integers(2, 6)
    centres: list[np.ndarray] = []
    radii: list[float] = []
    while len(centres) < wanted:
        radius = rng.uniform(2.0, 3.5)
        distance, angle = 24.0 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        centre = SIDE / 2 + distance * np.array([np.sin(angle), np.cos(angle)])
        clear = np.hypot(*(centre - disc)) > DISC_RADIUS + radius + 2.0
        if clear and all(np.hypot(*(centre - other)) > radius + r + 1.5 for other, r in zip(centres, radii)):
            centres.append(centre)
            radii.append(radius)
    return np.stack(centres), np.array(radii)
