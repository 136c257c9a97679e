"""What the claims of pm_dcgan and pm_ddpm share: the phantom eyes, the score, the control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import medsynth_tf as ms
from medsynth_tf.core.files import write_text
from medsynth_tf.data.phantoms.optic_disc import DISC, bright_disc
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.metrics.pairing import pairing

LEAST_MARGIN = 0.35
AREA_TOLERANCE = 0.4
EYES = 512


def phantom() -> Source:
    return ms.open_source(f"phantom:optic_disc?count={EYES}&size=32&seed=0")


class DealtMasks(Source):
    """A source whose masks belong to other images: image i comes with the mask of a fixed random other one."""

    def __init__(self, source: Source, seed: int = 0):
        self.source = source
        keys = source.keys()
        order = np.random.default_rng(seed).permutation(len(keys))
        self.partner = {keys[a].id: keys[b] for a, b in zip(order, np.roll(order, 1))}

    def keys(self) -> list[RecordKey]:
        return self.source.keys()

    def read(self, key: RecordKey) -> dict[str, Any]:
        return {**self.source.read(key), "mask": self.source.read(self.partner[key.id])["mask"]}

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "masks": "of other images"}


def score(samples: dict[str, np.ndarray]) -> dict[str, Any]:
    """Pairing, mean area in pixels and share of empty masks of generated pairs."""
    masks = samples["mask"] == DISC
    found = pairing(bright_disc(samples["image"]), masks)
    return {
        "paired": found.paired,
        "shuffled": found.shuffled,
        "margin": found.margin,
        "area": float(masks.sum((1, 2)).mean()),
        "empty": float(samples["empty_mask"].mean()),
    }


def real_figures(source: Source) -> dict[str, Any]:
    """The same of 128 real pairs."""
    records = [source.read(key) for key in source.keys()[:128]]
    masks = np.stack([record["mask"] for record in records])
    empty = ~(masks == DISC).any((1, 2))
    return score({"image": np.stack([r["image"] for r in records]), "mask": masks, "empty_mask": empty})


def write_picture(path: str, samples: dict[str, np.ndarray], columns: int = 12, rows: int = 2) -> None:
    """Photographs above their masks, enlarged three times."""
    bands = []
    for row in range(rows):
        chosen = slice(row * columns, (row + 1) * columns)
        grey = (samples["mask"][chosen] == DISC).astype(np.uint8)[..., None].repeat(3, -1) * np.uint8(255)
        bands += [np.concatenate(list(samples["image"][chosen]), 1), np.concatenate(list(grey), 1)]
    sheet = Image.fromarray(np.concatenate(bands, 0))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(path)


def write_results(slug: str, results: dict[str, Any]) -> Path:
    path = _results_file(slug)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(results, indent=2) + "\n")
    return path


def read_results(slug: str) -> dict[str, Any]:
    """What was written before; without a file, no runs and no figures of DDIM."""
    path = _results_file(slug)
    return json.loads(path.read_text()) if path.is_file() else {"runs": [], "ddim": []}


def _results_file(slug: str) -> Path:
    return Path(__file__).parent / "results" / f"{slug}.json"
