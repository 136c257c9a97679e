"""Frames like those of an endoscopic mitral-valve repair: pink tissue, dark threads, and a suture point where each thread ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

FRAMES_A_SURGERY = 8
_REFERENCE = 96.0  # lengths below are in pixels of a frame of this height
_BORDER, _APART, _PAIR = 8.0, 14.0, (6.0, 8.0)


@dataclasses.dataclass(frozen=True)
class ValveLandmarksOptions(Settings):
    """Options of `phantom:valve_landmarks`."""

    size: int = setting(96, help="height of the frames in pixels", minimum=32, maximum=1080)
    width: int | None = setting(None, help="default: 5/3 of the height", minimum=32, maximum=1920)
    seed: int = setting(0, help="which series of frames", minimum=0)
    fewest: int = setting(4, help="points at least; a partner of a pair comes on top", minimum=0)
    most: int = setting(10, help="points at most, without partners", minimum=0)
    pairs: float = setting(
        0.3, help="share of the points that have a partner 6 to 8 px (of a height of 96) away", minimum=0.0, maximum=1.0
    )
    domains: int = setting(
        1, help="1: operation; 2: every other surgery is on the simulator, in other colours", minimum=1, maximum=2
    )

    def check(self) -> None:
        """The numbers of points are in order."""
        if self.fewest > self.most:
            raise ConfigError(f"fewest = {self.fewest}: must not be above most = {self.most}")


class ValveLandmarksPhantom:
    """Eight frames a surgery (`patient_id`); `label` 0 simulator, 1 operation.

    Image uint8 [size, width, 3]; landmarks float32 [N, 2], (row, column) at sub-pixel places: the bright dots at the threads' ends.
    """

    options_class = ValveLandmarksOptions

    def __init__(self, options: ValveLandmarksOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """Eight frames each."""
        return index // FRAMES_A_SURGERY

    def label(self, index: int) -> int:
        """The domain."""
        return 1 if self.options.domains == 1 else self.patient(index) % 2

    def labels(self) -> dict[str, int]:
        """There is no label map."""
        return {}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [size, width, 3], `landmarks` float32 [N, 2], `modality` ES."""
        options = self.options
        rng = numpy_generator(options.seed, "valve_landmarks", index)
        height, width = options.size, options.width or round(options.size * 5 / 3)
        scale = height / _REFERENCE
        points = self._points(rng, np.array([height, width]) / scale)
        texture = ndimage.gaussian_filter(rng.standard_normal((height, width)), 7 * scale)
        texture /= texture.std() + 1e-6
        fine = ndimage.gaussian_filter(rng.standard_normal((height, width)), 1.2 * scale)
        tissue = np.array([0.78, 0.42, 0.42]) * rng.uniform(0.85, 1.15)
        image = tissue * (1.0 + 0.14 * texture[..., None] + 0.25 * fine[..., None])
        rows, columns = np.mgrid[:height, :width] / scale
        for point in points:
            image = self._thread(rng, image, point, rows, columns)
        for row, column in points:  # above all threads
            squared = (rows - row) ** 2 + (columns - column) ** 2
            dot = np.exp(-squared / (2 * 1.1**2))[..., None]
            image = image * (1 - 0.9 * dot) + 0.9 * dot * np.array([0.97, 0.95, 0.88])
        image += rng.normal(0, 0.025, image.shape)
        if self.label(index) == 0:  # silicone instead of tissue: other colours, harder light, more noise
            image = np.clip(image, 0, 1)[..., [2, 0, 1]] ** 1.4 + rng.normal(0, 0.02, image.shape)
        pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
        # from the reference's lengths to index coordinates: both count from the first pixel's centre
        return {"image": pixels, "landmarks": (points * scale).astype(np.float32).reshape(-1, 2), "modality": "ES"}

    def _points(self, rng: np.random.Generator, extent: np.ndarray) -> np.ndarray:
        """Places far from each other and from the border, some with a partner near by, in the reference's pixels."""
        count = int(rng.integers(self.options.fewest, self.options.most + 1))
        places: list[np.ndarray] = []
        for _ in range(200 * count):
            if len(places) == count:
                break
            place = rng.uniform(_BORDER, extent - 1 - _BORDER)
            if all(np.linalg.norm(place - other) >= _APART for other in places):
                places.append(place)
        partners = []
        for place in places:
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*_PAIR)
            if rng.uniform() < self.options.pairs:
                partner = place + distance * np.array([np.sin(angle), np.cos(angle)])
                partners.append(np.clip(partner, 2.0, extent - 3.0))
        return np.asarray(places + partners, np.float64).reshape(-1, 2)

    @staticmethod
    def _thread(
        rng: np.random.Generator, image: np.ndarray, point: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """The image with a dark curved thread that ends at the point, its last pixels coloured."""
        angle, bend, length = rng.uniform(0, 2 * np.pi), rng.uniform(-0.03, 0.03), rng.uniform(14, 30)
        direction = np.array([np.sin(angle), np.cos(angle)])
        along = (rows - point[0]) * direction[0] + (columns - point[1]) * direction[1]
        across = (columns - point[1]) * direction[0] - (rows - point[0]) * direction[1] - bend * along**2
        near = np.exp(-((across / 0.9) ** 2)) * (along > 0)
        thread = (near * (along < length))[..., None]
        image = image * (1 - 0.75 * thread) + 0.75 * thread * np.array([0.12, 0.10, 0.16])
        stub = (near * (along < 4))[..., None]
        colour = np.array([[0.2, 0.75, 0.35], [0.2, 0.45, 0.9]])[rng.integers(2)]
        return image * (1 - 0.8 * stub) + 0.8 * stub * colour
