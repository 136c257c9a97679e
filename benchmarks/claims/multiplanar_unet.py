"""The claim of multiplanar_unet: resampled planes with labels on lines alone beat the annotated planes they come from.

On `phantom:capsules` (48³; capsules to find among spheres like them), one volume to train on and another to test. Three arms,
the same small network, 400 steps of batch 4 without augmentation, segmented from K = 3 random views: three annotated planes;
the same three as lines on 128 resampled planes; nine annotated planes. With `--more` also the arms with augmentation and the
3-D U-Net, which the claim does not ask.

    python benchmarks/claims/multiplanar_unet.py --seeds 0 1 2 3 4

Prints each seed's figures and writes them to `benchmarks/claims/results/multiplanar_unet.json`; exits with 1 if the claim
does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import medsynth_tf as ms
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.metrics.overlap import dice

RESULTS = Path(__file__).parent / "results" / "multiplanar_unet.json"
GAIN, SHORTFALL = 0.05, 0.05
SMALL = {
    "data.split_fractions": [1.0, 0.0, 0.0],
    "augmentation.enabled": False,
    "planes.size": 48,
    "network": {"filters": 8, "levels": 3, "batch_momentum": 0.9},
    "optimiser.learning_rate": 1e-3,
    "training.batch_size": 4,
    "views.count": 3,
}
ARMS: dict[str, dict[str, Any]] = {
    "three_planes": {"planes.annotation": 3, "planes.training": 0},
    "three_planes_resampled": {"planes.annotation": 3, "planes.training": 128},
    "nine_planes": {"planes.annotation": 9, "planes.training": 0},
}
MORE: dict[str, dict[str, Any]] = {
    "three_planes_augmented": {**ARMS["three_planes"], "augmentation.enabled": True},
    "three_planes_resampled_augmented": {**ARMS["three_planes_resampled"], "augmentation.enabled": True},
    "three_planes_3d": {
        **ARMS["three_planes_resampled"],
        "model": "unet3d",
        "training.batch_size": 1,
        "comparator": {"size": 32, "stride": 16, "filters": 4, "levels": 2},
    },
}


def judged(seed: int, overrides: dict[str, Any], steps: int) -> dict[str, float]:
    """One run: Dice on the test volume, annotated pixels, seconds."""
    started = time.time()
    config = ms.load_config("multiplanar_unet", overrides={**SMALL, **overrides, "seed": seed})
    model = ms.create("multiplanar_unet", config)
    model.compile()
    stage = model.stages(PhantomSource("capsules", 1, seed=2 * seed))[0]
    stage.begin()
    model.fit(stage.batches(0), steps_per_epoch=steps, epochs=1, verbose=0)
    test = PhantomSource("capsules", 1, seed=2 * seed + 1)
    record = test.read(test.keys()[0])
    probability, mask = model.segment(record["image"][..., 0], record["spacing"])
    found = dice((mask > 0)[np.newaxis], (record["mask"] > 0)[np.newaxis])[0]
    return {
        "dice": float(found),
        "mean_probability": float(probability.mean()),
        "annotated_pixels": int(model.annotated_pixels),
        "seconds": round(time.time() - started, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=400, help="of each run")
    parser.add_argument("--more", action="store_true", help="also arms that the claim does not ask")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arms = {**ARMS, **(MORE if arguments.more else {})}
    results = []
    for seed in arguments.seeds:
        result: dict[str, Any] = {"seed": seed, **{arm: judged(seed, own, arguments.steps) for arm, own in arms.items()}}
        results.append(result)
        print(
            f"seed {seed}: " + ", ".join(f"{arm} {result[arm]['dice']:.3f} ({result[arm]['seconds']} s)" for arm in arms),
            flush=True,
        )
    means = {arm: float(np.mean([result[arm]["dice"] for result in results])) for arm in arms}
    print("mean: " + ", ".join(f"{arm} {value:.3f}" for arm, value in means.items()))
    resampled = means["three_planes_resampled"]
    margins = {
        "over the three planes": resampled - means["three_planes"] - GAIN,
        "of nine planes": resampled - means["nine_planes"] + SHORTFALL,
    }
    print("margins: " + ", ".join(f"{name} {margin:+.3f}" for name, margin in margins.items()))
    holds = all(margin >= 0 for margin in margins.values())
    report = {
        "claim": "mean Dice of a test volume: three annotated planes as lines on 128 resampled ones >= the three planes + 0.05, "
        "and >= nine annotated planes - 0.05",
        "holds": holds,
        "settings": {"steps": arguments.steps, **SMALL},
        "mean_dice": means,
        "margins": margins,
        "seeds": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print("the claim holds" if holds else "THE CLAIM DOES NOT HOLD")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
