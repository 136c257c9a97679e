"""The three GANs that semantic_retina can take label maps from, on the same maps and judged alike.

    python -m benchmarks.label_sources --sources acgan progan stylegan --seed 0

Each learns 400 label maps of `phantom:exudates` (64×64, three grades with 2, 5 and 10 exudates), the AC-GAN at one resolution, the
others from 4×4 on. A classifier of real maps then names the grades of 300 sampled maps. What it says for each grade, the exudates'
pixels, and the share of maps with one optic disc are printed beside those of real maps, with the minutes of training.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import ndimage

import medsynth_tf as ms
from benchmarks.claims.semantic_retina import EXUDATE, drawn, grader_of_maps
from medsynth_tf.core.files import replacing_file
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.translation.semantic_retina.label_stages import label_stages, make_label_gan
from medsynth_tf.methods.translation.semantic_retina.sampling import harden

SIZE, GRADES, COUNT = 64, 3, 400
LABELS = ["retina", "optic_disc", "hard_exudate"]
COMMON: dict[str, Any] = {"enabled": True, "size": SIZE, "doublings": 4, "grades": GRADES, "steps_per_epoch": 100}
SETTINGS: dict[str, dict[str, Any]] = {
    "acgan": {
        "generator_filters": 128,
        "generator_learning_rate": 2e-4,
        "discriminator_learning_rate": 2e-4,
        "batch_size": 32,
        "epochs": 20,
        "decay_epochs": 10,
    },
    "progan": {
        "generator_filters": 128,
        "generator_learning_rate": 2e-4,
        "discriminator_learning_rate": 2e-4,
        "decay_epochs": 5,
        "progressive": {
            "epochs": [4, 4, 6, 8, 10],
            "batch_sizes": [32, 32, 32, 32, 32],
            "filters": [128, 128, 64, 32, 16],
        },
    },
    "stylegan": {
        "generator_steps": 1,
        "generator_learning_rate": 2e-3,
        "discriminator_learning_rate": 2e-3,
        "beta_1": 0.0,
        "beta_2": 0.99,
        "discriminator_clip_norm": None,
        "augmentation": {"enabled": False},
        "decay_epochs": 5,
        "progressive": {
            "epochs": [4, 4, 6, 8, 10],
            "batch_sizes": [32, 32, 16, 16, 16],
            "filters": [64, 64, 64, 32, 16],
        },
    },
}


def sampled(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Maps uint8 that a source trained anew makes, the grades that they were asked for, and the seconds of training."""
    settings = {**COMMON, **SETTINGS[name], "source": name}
    overrides = {"seed": seed, "image_size": SIZE, "labels": LABELS, "label_generator": settings, "data.flip_vertical": True}
    config = ms.load_config("semantic_retina", "small", {**overrides, "data.split_fractions": [1.0, 0.0, 0.0]})
    source = ms.open_source(f"phantom:exudates?count={COUNT}&size={SIZE}&seed={2 * seed + 2000}")
    label_gan = make_label_gan(config)
    label_gan.compile()
    start = time.perf_counter()
    for stage in label_stages(label_gan, source, lambda batch, model: {}):
        history = stage.model.fit(
            stage.batches(0),
            epochs=stage.epochs,
            steps_per_epoch=stage.steps_per_epoch,
            callbacks=list(stage.callbacks),
            verbose=0,
        ).history
        last = {key: round(float(values[-1]), 3) for key, values in history.items()}
        print(f"{name}, {stage.name}: {stage.steps} steps, {time.perf_counter() - start:.0f} s, {last}", flush=True)
    seconds = time.perf_counter() - start
    asked = np.arange(300, dtype=np.int32) % GRADES
    maps = [
        harden(
            label_gan({"grade": asked[first : first + 100], "seed": tf.range(first, first + 100, dtype=tf.int64) + 10**9}), SIZE
        )
        for first in range(0, len(asked), 100)
    ]
    return np.concatenate([part.numpy() for part in maps]), asked, seconds


def figures(maps: np.ndarray, grades: np.ndarray, named: np.ndarray) -> dict[str, Any]:
    """What is said of maps uint8 [N, S, S] of the given grades, which the classifier named otherwise or not."""
    pieces = np.array([ndimage.label(label_map == 1)[1] for label_map in maps])
    return {
        "accuracy": float((named == grades).mean()),
        "accuracy_by_grade": [float((named[grades == grade] == grade).mean()) for grade in range(GRADES)],
        "exudate_pixels_by_grade": [float((maps[grades == grade] == EXUDATE).sum((1, 2)).mean()) for grade in range(GRADES)],
        "one_optic_disc": float((pieces == 1).mean()),
        "different_maps": len({label_map.tobytes() for label_map in maps}) / len(maps),
    }


def row_of_pictures(maps: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """Four maps of each grade, side by side."""
    row = np.concatenate([maps[grades == grade][:4] for grade in range(GRADES)])
    return np.concatenate(list(np.where(row == 255, 0, 60 + 90 * row.astype(int))), 1).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    parser.add_argument("--picture", type=Path, help="PNG: real maps by grade, then those of each source")
    arguments = parser.parse_args()
    real, test = drawn(2 * arguments.seed + 2000, COUNT, SIZE), drawn(2 * arguments.seed + 2001, 150, SIZE)
    grade_of = grader_of_maps(real, layer_seed(arguments.seed, "grader"), 600)
    found = {"real": figures(test["mask"], test["label"], grade_of(test["mask"]))}
    print(f"real: {json.dumps(found['real'])}", flush=True)
    rows = [row_of_pictures(test["mask"], test["label"])]
    for name in arguments.sources:
        maps, asked, seconds = sampled(name, arguments.seed)
        found[name] = {**figures(maps, asked, grade_of(maps)), "training_seconds": seconds}
        print(f"{name}: {json.dumps(found[name])}", flush=True)
        rows.append(row_of_pictures(maps, asked))
    if arguments.picture is not None:
        with replacing_file(arguments.picture) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary)
    if arguments.out is not None:
        with replacing_file(arguments.out) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
