"""Table 1 of the us_style paper on a phantom: is a segmenter better for phantom images in the style of the domain that counts?

A labelled domain (style 1 of `phantom:ultrasound`), and another (style 2) with few labels and many images without. Two transfers learn
from both, without labels: vt, the variational method, and dt, deterministic with one AdaIN at the coarsest scale. Then a U-Net for each
cell of {vt, dt, raw, none} × {augmented, not} × numbers of real images.

    python benchmarks/us_style_grid.py --real 6 --steps 300 --seeds 0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.data.concatenated_source import ConcatenatedSource
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.style_grid import GridConfig, Segmented, Transfer, segmentation_grid, with_styles

LABELLED, UNLABELLED, TEST = 200, 128, 60
WAYS: dict[str, dict[str, Any]] = {
    "vt": {},
    "dt": {"style.variational": False, "network.adain_site": "bottleneck", "losses.style_form": "moments"},
}


def segmented(source: PhantomSource) -> Segmented:
    records = list(map(source.read, source.keys()))
    return Segmented(np.stack([r["image"] for r in records]), np.stack([r["mask"] for r in records]))


def transfer(overrides: dict[str, Any], source: ConcatenatedSource, styles: np.ndarray, steps: int, seed: int) -> Transfer:
    """Trains one of the ways on images of both domains, without their labels."""
    fixed = {"seed": seed, "pretraining.epochs": 0, "data.split_fractions": [1.0, 0.0, 0.0], "training.steps_per_epoch": steps}
    model = ms.create("us_style", ms.load_config("us_style", overrides={**fixed, "training.epochs": 1, **overrides}))
    model.compile()
    (stage,) = model.stages(source)
    if stage.begin is not None:
        stage.begin()
    model.fit(stage.batches(0), steps_per_epoch=steps, epochs=1, verbose=0)
    signature = model.signatures()["serving_default"]

    def predict(contents: np.ndarray, styles: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return signature(content=tf.constant(contents), style=tf.constant(styles), seed=tf.constant(seeds))["image"].numpy()

    return with_styles(predict, styles, seed)


def one_seed(seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    phantom = PhantomSource("ultrasound", LABELLED, style=1, seed=3 * seed)
    real = PhantomSource("ultrasound", UNLABELLED, style=2, seed=3 * seed + 1)
    both = ConcatenatedSource([(phantom, phantom.keys()), (real, real.keys())])
    styles = segmented(real)
    ways: dict[str, Transfer | None] = {
        name: transfer(overrides, both, styles.images, arguments.steps, seed) for name, overrides in WAYS.items()
    }
    ways |= {"raw": lambda images, epoch: images, "none": None}
    settings = GridConfig(widths=(8, 16, 32), epochs=arguments.epochs, batch_size=16, learning_rate=3e-3)
    test = segmented(PhantomSource("ultrasound", TEST, style=2, seed=3 * seed + 2))

    def report(cell: dict[str, Any]) -> None:
        print(f"seed {seed}:", json.dumps(cell), flush=True)

    cells = segmentation_grid(
        settings, segmented(phantom), styles, test, ways, arguments.real, arguments.augmentation, seed, report
    )
    return [{"seed": seed, **cell} for cell in cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="of training each transfer")
    parser.add_argument("--epochs", type=int, default=12, help="of each segmenter")
    parser.add_argument("--real", type=int, nargs="+", default=[6], help="numbers of labelled real images")
    parser.add_argument("--augmentation", type=int, nargs="+", choices=[0, 1], default=[1, 0], help="with and without")
    parser.add_argument("--out", type=Path, help="JSON file of all cells")
    arguments = parser.parse_args()
    cells = [cell for seed in arguments.seeds for cell in one_seed(seed, arguments)]
    print("\n| training set | Dice | IoU | precision | recall |\n|---|---|---|---|---|")
    for source in ("vt", "dt", "raw", "none"):
        for count in arguments.real:
            for augment in map(bool, arguments.augmentation):
                same = [c["class_1"] for c in cells if (c["source"], c["real"], c["augmented"]) == (source, count, augment)]
                means = [f"{np.mean([c[name] for c in same]):.3f}" for name in ("dice", "iou", "precision", "recall")]
                print(f"| {source}/real-{count}{'/aug' if augment else ''} | " + " | ".join(means) + " |")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(cells, indent=2) + "\n")


if __name__ == "__main__":
    main()
