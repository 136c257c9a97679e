"""Panels of four kinds as they stand in compound figures: light, fluorescence and electron micrographs, and charts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

CLASSES = ("light", "fluorescence", "electron", "chart")


@dataclasses.dataclass(frozen=True)
class FigurePanelsOptions(Settings):
    """Options of `phantom:figure_panels`."""

    least: int = setting(24, help="shortest side of a panel in pixels", minimum=8, maximum=1024)
    most: int = setting(48, help="longest side", minimum=8, maximum=1024)
    seed: int = setting(0, help="which series of panels", minimum=0)

    def check(self) -> None:
        """In order."""
        if self.least > self.most:
            raise ConfigError(f"least = {self.least}: must not be above most = {self.most}")


class FigurePanelsPhantom:
    """One panel a patient; `label` 0 light, 1 fluorescence, 2 electron, 3 chart, in turn. Image uint8 [h, w, 3], sides at random."""

    options_class = FigurePanelsOptions

    def __init__(self, options: FigurePanelsOptions):
        self.options = options

    def patient(self, index: int) -> int:
        """One each."""
        return index

    def label(self, index: int) -> int:
        """The classes in turn."""
        return index % len(CLASSES)

    def labels(self) -> dict[str, int]:
        """There is no label map."""
        return {}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` uint8 [h, w, 3]."""
        rng = numpy_generator(self.options.seed, "figure_panels", index)
        height, width = (int(side) for side in rng.integers(self.options.least, self.options.most + 1, 2))
        painters = (self._light, self._fluorescence, self._electron, self._chart)
        image = painters[self.label(index)](rng, height, width)
        return {"image": np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)}

    @staticmethod
    def _blobs(rng: np.random.Generator, height: int, width: int, radius: tuple[float, float]) -> np.ndarray:
        rows, columns = np.mgrid[:height, :width]
        total = np.zeros((height, width))
        for _ in range(max(3, height * width // 90)):
            row, column, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(*radius)
            total = np.maximum(total, np.exp(-((((rows - row) ** 2 + (columns - column) ** 2) / size**2) ** 2)))
        return total[..., np.newaxis]

    def _light(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Pink tissue with violet nuclei."""
        blobs = self._blobs(rng, height, width, (1.2, 2.8))
        tissue = np.array([0.93, 0.72, 0.82]) + rng.normal(0, 0.04, (height, width, 1))
        return tissue * (1 - blobs) + blobs * np.array([0.45, 0.25, 0.6])

    def _fluorescence(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Black with green spots."""
        blobs = self._blobs(rng, height, width, (1.0, 3.2)) * rng.uniform(0.5, 1.0)
        return 0.03 + blobs * np.array([0.15, 0.95, 0.25]) + rng.normal(0, 0.015, (height, width, 1))

    @staticmethod
    def _electron(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Grey, rough texture."""
        rough = ndimage.gaussian_filter(rng.standard_normal((height, width)), 1.2)
        coarse = ndimage.gaussian_filter(rng.standard_normal((height, width)), 4.0)
        grey = 0.5 + 0.22 * rough / rough.std() + 0.12 * coarse / (coarse.std() + 1e-9)
        return np.repeat(grey[..., np.newaxis], 3, -1)

    @staticmethod
    def _chart(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """White with axes and curves."""
        picture = Image.new("RGB", (width, height), (250, 250, 250))
        draw = ImageDraw.Draw(picture)
        left, bottom = max(2, width // 8), height - max(3, height // 8)
        draw.line((left, 1, left, bottom), (20, 20, 20))
        draw.line((left, bottom, width - 2, bottom), (20, 20, 20))
        steps = np.linspace(0, 1, 12)
        for _ in range(int(rng.integers(1, 4))):
            level, slope, swing = rng.uniform(0.2, 0.8), rng.uniform(-0.4, 0.4), rng.uniform(0, 0.25)
            values = np.clip(level + slope * (steps - 0.5) + swing * np.sin(6 * steps + rng.uniform(0, 6)), 0.05, 0.95)
            colour = tuple(int(v) for v in rng.integers(0, 200, 3))
            points = [(left + x * (width - 3 - left), bottom - y * (bottom - 2)) for x, y in zip(steps, values)]
            draw.line([(round(x), round(y)) for x, y in points], colour)
        return np.asarray(picture) / 255.0
