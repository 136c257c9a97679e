"""The claim of heatmap_landmark: Otsu, opening and cutting find points that lie close, at a price in precision where none do.

Part A, without training: heatmaps of 288×512 with 6 to 13 places, each a pair 9 to 12.5 px apart with probability q, and predictions
made of them with smooth noise; three decoders are compared. Part B: a plain U-Net learns `phantom:valve_landmarks` (96×160) and is
decoded with and without.

    python benchmarks/claims/heatmap_landmark.py [--seeds 0 1 2] [--steps 600]

Prints each seed's figures and writes them to `benchmarks/claims/results/heatmap_landmark.json`; exits with 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

import medsynth_tf as ms
from medsynth_tf.core.files import write_text
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.methods.landmarks.heatmap_landmark.config import DecoderConfig
from medsynth_tf.methods.landmarks.heatmap_landmark.decoding import decode
from medsynth_tf.metrics.points import point_scores
from medsynth_tf.ops.heatmaps import gaussian_heatmaps

RESULTS = Path(__file__).parent / "results" / "heatmap_landmark.json"
SIZE, MAPS, APART, BORDER, PAIR, RADIUS = (288, 512), 30, 34.0, 25.0, (9.0, 12.5), 6.0
SENSITIVITY, F1, PRICE, TRAINED = 0.12, 0.05, 0.15, 0.05
DECODERS = {
    "fixed": DecoderConfig(threshold="fixed", fixed_threshold=0.5, opening_radius=0, cut=False),
    "open": DecoderConfig(cut=False),
    "cut": DecoderConfig(),
}
LEARNT = {"size": (96, 160), "radius": 4.0, "frames": 200, "held_out": 60}


def scattered(rng: np.random.Generator, share: float) -> np.ndarray:
    """Points [N, 2] of one map."""
    count, places = int(rng.integers(6, 14)), []
    while len(places) < count:
        place = rng.uniform(BORDER, np.array(SIZE) - 1 - BORDER)
        if all(np.linalg.norm(place - other) >= APART for other in places):
            places.append(place)
    points = []
    for place in places:
        points.append(place)
        if rng.uniform() < share:
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*PAIR)
            half = distance / 2 * np.array([np.sin(angle), np.cos(angle)])
            points[-1] = place - half
            points.append(place + half)
    return np.asarray(points)


def decoder_experiment(seed: int) -> dict[str, Any]:
    """Scores of each decoder for each share of pairs."""
    found: dict[str, Any] = {}
    for share in (0.25, 0.5, 0.0):
        rng = numpy_generator(seed, "maps", round(100 * share))
        truth = [scattered(rng, share) for _ in range(MAPS)]
        padded = np.full([MAPS, 32, 2], np.nan, np.float32)
        for row, points in zip(padded, truth):
            row[: len(points)] = points
        maps = gaussian_heatmaps(tf.constant(padded), SIZE, 32.0).numpy()
        noise = ndimage.gaussian_filter(rng.standard_normal(maps.shape), (0, 3, 3))
        probability = tf.constant(1 / (1 + np.exp(-(10 * (maps - 0.35) + 5 * noise))), tf.float32)
        found[f"pairs_{share}"] = {}
        for name, config in DECODERS.items():
            answer = decode(probability, config)
            points = [p[:n] for p, n in zip(answer["points"].numpy(), answer["count"].numpy())]
            found[f"pairs_{share}"][name] = point_scores(zip(points, truth), RADIUS)
    return found


def trained_experiment(seed: int, steps: int) -> dict[str, Any]:
    """Scores of one network under both decoders."""
    height, width = LEARNT["size"]
    config = ms.load_config(
        "heatmap_landmark",
        "small",
        {
            "seed": seed,
            "image_height": height,
            "image_width": width,
            "detector.widths": [8, 16, 32, 64],
            "heatmap.variance": 8.0,
            "optimiser": {"learning_rate": 2e-3, "weight_decay": 0.0, "warmup_epochs": 0},
            "training.batch_size": 8,
            "data": {"split_fractions": [1.0, 0.0, 0.0], "cache": True},
        },
    )
    model = ms.create("heatmap_landmark", config)
    model.compile()
    series = f"phantom:valve_landmarks?size={height}&width={width}"
    source = ms.open_source(f"{series}&count={LEARNT['frames']}&seed={2 * seed + 1}")
    batches = model.dataset(source, config, "train", seed, epochs=None)
    history = model.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0)
    fresh = ms.open_source(f"{series}&count={LEARNT['held_out']}&seed={2 * seed + 2}")
    records = [fresh.read(key) for key in fresh.keys()]
    probability = model.probability(tf.constant(np.stack([record["image"] for record in records])))
    found: dict[str, Any] = {"loss": history.history["loss"][-1]}
    for name, base in (("fixed", DECODERS["fixed"]), ("cut", config.decoder)):
        answer = decode(probability, base)
        points = [p[:n] for p, n in zip(answer["points"].numpy(), answer["count"].numpy())]
        found[name] = point_scores(zip(points, (record["landmarks"] for record in records)), LEARNT["radius"])
    return found


def line(scores: dict[str, Any]) -> str:
    return " / ".join(f"{scores[name]:.3f}" for name in ("precision", "sensitivity", "f1"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of training in part B")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    seeds: dict[str, Any] = {}
    for seed in arguments.seeds:
        drawn = decoder_experiment(seed)
        quarter, none = drawn["pairs_0.25"], drawn["pairs_0.0"]
        margins = {
            "sensitivity": quarter["cut"]["sensitivity"] - quarter["fixed"]["sensitivity"] - SENSITIVITY,
            "f1": quarter["cut"]["f1"] - quarter["fixed"]["f1"] - F1,
            "price": none["open"]["precision"] - none["cut"]["precision"] - PRICE,
        }
        print(f"seed {seed}, precision / sensitivity / F1")
        for share, decoders in drawn.items():
            print(f"  {share}: " + ", ".join(f"{name} {line(scores)}" for name, scores in decoders.items()), flush=True)
        learnt = trained_experiment(seed, arguments.steps)
        print(f"  trained: fixed {line(learnt['fixed'])}, cut {line(learnt['cut'])}", flush=True)
        seeds[str(seed)] = {"decoders": drawn, "trained": learnt, "margins": margins}
    gain = float(np.mean([s["trained"]["cut"]["sensitivity"] - s["trained"]["fixed"]["sensitivity"] for s in seeds.values()]))
    held = all(margin >= 0 for s in seeds.values() for margin in s["margins"].values()) and gain >= TRAINED
    claim = (
        f"at 25 % pairs sensitivity(cut) >= sensitivity(fixed) + {SENSITIVITY} and F1(cut) >= F1(fixed) + {F1}; without pairs "
        f"precision(cut) < precision(open) - {PRICE}, each seed; trained, mean sensitivity(cut) >= mean sensitivity(fixed) + {TRAINED}"
    )
    print(f"{claim}: trained gain {gain:.3f}: {'HOLDS' if held else 'DOES NOT HOLD'}")
    results = {
        "claim": claim,
        "holds": held,
        "trained_gain": gain,
        "steps": arguments.steps,
        "seeds": [{"seed": int(seed), **found} for seed, found in seeds.items()],
    }
    write_text(arguments.out, json.dumps(results, indent=2) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
