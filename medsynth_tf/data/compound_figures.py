"""Compound figures, simulated: single panels laid out in rows or columns (SimCFS-AUG, Yao et al., DGM4MICCAI 2021, section 2.1).

Each panel keeps its aspect ratio. Rows of one height, or columns of one width, are filled with panels of a bank; gaps are white or
none. In intra-class figures all panels are of one class and touch. 'tsutsui'
stretches panels to a random grid instead (arXiv:1703.05105).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.records import Record
from medsynth_tf.data.source import RecordKey, Source

Kind = Literal["mixed", "intra", "single"]
WHITE = 255


@dataclasses.dataclass(frozen=True)
class SimulatorConfig(Settings):
    """How figures are simulated. Ranges are drawn from uniformly; the paper gives none."""

    style: Literal["simcfs", "tsutsui"] = setting("simcfs", help="panels keep their aspect ratio, or are stretched to a grid")
    mixed: int = setting(5000, help="ordinary figures in a pass", minimum=0)
    intra: int = setting(2000, help="figures of one class without gaps", minimum=0)
    single: int = setting(2947, help="figures of one panel", minimum=0)
    canvas_width: tuple[int, int] = setting(
        (600, 1200), help="pixels, of row figures; the height of column figures", minimum=16
    )
    row_height: tuple[float, float] = setting((0.15, 0.45), help="share of the canvas's width", above=0.0, maximum=1.0)
    rows: tuple[int, int] = setting((1, 5), help="number of rows", minimum=1)
    no_gap: float = setting(0.5, help="probability that panels of a mixed figure touch", minimum=0.0, maximum=1.0)
    gap: tuple[float, float] = setting((2.0, 20.0), help="white pixels between panels, where there are any", minimum=0.0)
    justify: float = setting(0.5, help="probability that a row is scaled to fill the canvas's width", minimum=0.0, maximum=1.0)
    square: bool = setting(False, help="figures end with a square canvas, whose rows are those that fit, and are white below")
    background_label: int | None = setting(
        None, help="class of panels that are pasted and not framed ('others'); null: all are framed", minimum=0
    )

    def check(self) -> None:
        """Ranges are in order, and there is something to make."""
        for name in ("canvas_width", "row_height", "rows", "gap"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"simulator.{name} = {(low, high)}: the first must not be above the second")
        if not self.figures:
            raise ConfigError("simulator: mixed, intra and single are all 0: no figures")

    @property
    def figures(self) -> int:
        """In a pass."""
        return self.mixed + self.intra + self.single

    def kind(self, index: int) -> Kind:
        """Of figure `index` of a pass."""
        if index < self.mixed:
            return "mixed"
        return "intra" if index < self.mixed + self.intra else "single"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: `image` uint8 [H, W, 3]; `boxes` float32 [N, 4], (row, column) minima then maxima; `labels` int64 [N] of the boxes;
    `aspects` [N], height over width of the panels before they were scaled."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    aspects: np.ndarray


Panel = tuple[np.ndarray, int]  # image uint8 [h, w, 1 or 3] and class
Draw = Callable[[], Panel]


def simulate(draw: Draw, rng: np.random.Generator, kind: Kind, config: SimulatorConfig) -> Figure:
    """One figure.

    Args:
        draw: the next panel, at random; of one class for an intra-class figure.
        rng: of the layout.
        kind: of figure.
        config: the ranges.
    """
    columns = bool(rng.uniform() < 0.5)  # column figures are row figures, transposed before and after
    width = int(rng.integers(config.canvas_width[0], config.canvas_width[1] + 1))

    def panel() -> Panel:
        image, label = draw()
        image = np.repeat(image, 3 // image.shape[-1], -1)
        return (image.transpose(1, 0, 2) if columns else image), label

    if kind == "single":
        placed, size = _one(panel(), rng, width, config), width
    elif config.style == "tsutsui":
        placed, size = _grid(panel, rng, width, config)
    else:
        gap = 0 if kind == "intra" or rng.uniform() < config.no_gap else round(rng.uniform(*config.gap))
        placed, size = _rows(panel, rng, width, gap, config)
    return _painted(placed, (width if config.square else size, width), columns, config)


_Placed = list[tuple[np.ndarray, int, int, int, int, int]]  # panel, class, top, left, height, width


def _rows(
    panel: Callable[[], Panel], rng: np.random.Generator, width: int, gap: int, config: SimulatorConfig
) -> tuple[_Placed, int]:
    placed: _Placed = []
    top = 0
    for _ in range(int(rng.integers(config.rows[0], config.rows[1] + 1))):
        height = max(1, round(rng.uniform(*config.row_height) * width))
        if config.square and placed and top + height > width:
            break
        row: list[tuple[np.ndarray, int, int]] = []
        used = 0
        while True:
            image, label = panel()
            scaled = max(1, round(image.shape[1] * height / image.shape[0]))
            if row and used + gap + scaled > width:
                break
            if scaled > width:  # alone too wide: the row becomes as low as it must
                height, scaled = max(1, round(image.shape[0] * width / image.shape[1])), width
            used += (gap if row else 0) + scaled
            row.append((image, label, scaled))
            if used >= width:
                break
        gaps = gap * (len(row) - 1)
        stretch = (width - gaps) / (used - gaps) if rng.uniform() < config.justify else 1.0
        if config.square and top + round(height * stretch) > width:
            stretch = 1.0
        tall = max(1, round(height * stretch))
        if config.square and top + tall > width:
            break
        left = 0
        for image, label, scaled in row:
            wide = min(max(1, round(scaled * stretch)), width - left)
            placed.append((image, label, top, left, tall, wide))
            left += wide + gap
        top += tall + gap
    return placed, top - gap


def _grid(panel: Callable[[], Panel], rng: np.random.Generator, width: int, config: SimulatorConfig) -> tuple[_Placed, int]:
    """Rows of random heights, each divided into random columns, which panels are stretched to."""
    placed: _Placed = []
    top = 0
    for _ in range(int(rng.integers(config.rows[0], config.rows[1] + 1))):
        height = max(1, round(rng.uniform(*config.row_height) * width))
        if config.square and top + height > width:
            break
        gap = 0 if rng.uniform() < config.no_gap else round(rng.uniform(*config.gap))
        shares = rng.dirichlet(np.full(int(rng.integers(1, 5)), 4.0))
        edges = np.rint(np.concatenate([[0.0], np.cumsum(shares)]) * width).astype(int)
        for left, right in itertools.pairwise(edges):
            if right - gap - left >= 1:
                image, label = panel()
                placed.append((image, label, top, int(left), height, int(right - gap - left)))
        top += height + gap
    if not placed:
        image, label = panel()
        return [(image, label, 0, 0, width, width)], width
    return placed, max(t + h for _, _, t, _, h, _ in placed)


def _one(panel: Panel, rng: np.random.Generator, width: int, config: SimulatorConfig) -> _Placed:
    """One panel with a white margin, on a square canvas."""
    image, label = panel
    share = rng.uniform(0.4, 0.95) * width / max(image.shape[:2])
    height, wide = (max(1, round(side * share)) for side in image.shape[:2])
    top, left = (int(rng.integers(0, width - side + 1)) for side in (height, wide))
    return [(image, label, top, left, height, wide)]


def _painted(placed: _Placed, size: tuple[int, int], columns: bool, config: SimulatorConfig) -> Figure:
    canvas = np.full([*size, 3], WHITE, np.uint8)
    boxes, labels, aspects = [], [], []
    for image, label, top, left, height, width in placed:
        scaled = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
        canvas[top : top + height, left : left + width] = np.asarray(scaled)
        if label == config.background_label:
            continue
        boxes.append((top, left, top + height, left + width))
        labels.append(label)
        aspects.append(image.shape[0] / image.shape[1])
    found, ratios = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(aspects, np.float64)
    if columns:
        return Figure(
            np.ascontiguousarray(canvas.transpose(1, 0, 2)), found[:, [1, 0, 3, 2]], np.asarray(labels, np.int64), 1 / ratios
        )
    return Figure(canvas, found, np.asarray(labels, np.int64), ratios)


class CompoundFigureSource(Source):
    """Figures simulated of a source's single panels, each when it is asked for; figure i is always the same.

    Args:
        bank: records with a label.
        keys: those that are used.
        config: of the simulator; `config.figures` records.
        seed: of layouts and choices.

    Raises:
        DataError: a record has no label.
    """

    def __init__(self, bank: Source, keys: Sequence[RecordKey], config: SimulatorConfig, seed: int):
        self.bank, self.config, self.seed = bank, config, seed
        self.panels = list(keys)
        if not self.panels:
            raise DataError("compound figures: the bank holds no panels")
        if any(key.label is None for key in self.panels):
            raise DataError("compound figures: every panel of the bank needs a label, its class")
        self._panel = functools.lru_cache(maxsize=1024)(self._read)

    def _read(self, position: int) -> np.ndarray:
        record = self.bank.read(self.panels[position])
        image = record["image"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise DataError(f"panel '{record['id']}': {image.dtype} {list(image.shape)}, expected uint8 [H, W, 1 or 3]")
        return image

    def keys(self) -> list[RecordKey]:
        """One for each figure, of no split and no class."""
        return [RecordKey(f"figure-{i:06d}", f"figure-{i:06d}", None, None) for i in range(self.config.figures)]

    def read(self, key: RecordKey) -> Record:
        """The figure, drawn anew."""
        index = int(key.id.rpartition("-")[2])
        rng = numpy_generator(derive_seed(self.seed, "compound figures", index), "layout")
        kind = self.config.kind(index)
        candidates = np.arange(len(self.panels))
        if kind == "intra":  # classes alike, however many panels each has
            labels = np.asarray([panel.label for panel in self.panels])
            allowed = [label for label in np.unique(labels) if label != self.config.background_label]
            candidates = np.flatnonzero(labels == rng.choice(allowed))

        def draw() -> Panel:
            position = int(rng.choice(candidates))
            label = self.panels[position].label
            assert label is not None
            return self._panel(position), label

        figure = simulate(draw, rng, kind, self.config)
        names: dict[str, Any] = {"id": key.id, "patient_id": key.patient_id}
        return {**names, "image": figure.image, "boxes": figure.boxes, "box_labels": figure.labels}

    def optional_names(self, keys: Sequence[RecordKey]) -> frozenset[str]:
        """Boxes and their labels."""
        return frozenset({"boxes", "box_labels"})

    def describe(self) -> dict[str, Any]:
        """Kind, counts and the bank."""
        return {"kind": "compound figures", "count": self.config.figures, "bank": self.bank.describe()}
