"""The claim of us_style: images take on another's texture and keep their own shapes, and the latent space is one of textures.

On `phantom:ultrasound` (48×48, four textures). Judged by six descriptors of texture on pairs of test images of unlike textures:

A. fidelity (distance to the style, over the content's own) with the style loss <= without it - 0.12, and <= 0.80;
B. correlation of blurred results with blurred contents >= 0.45, vessels darker than their surroundings by >= 0.15;
C. spread of descriptors over 24 draws of the prior for one image: coherent draws >= 5 times draws for each pixel.

    python benchmarks/claims/us_style.py --seeds 0 1 2

Prints each seed's figures and writes them to `benchmarks/claims/results/us_style.json`; exits with 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.metrics.label_contrast import label_contrast
from medsynth_tf.metrics.style_descriptor import StyleSpace, shape_correlation

RESULTS = Path(__file__).parent / "results" / "us_style.json"
SITES = {"decoder": "on decoder features", "skip": "on skip connections"}
CLAIM = (
    "in each seed and for AdaIN {}: fidelity <= without style loss - 0.12 and <= 0.80; blurred correlation with the content >= 0.45, "
    "vessels darker by >= 0.15; spread of coherent prior draws >= 5 times that of iid ones"
)
TRAIN, TEST, DRAWS, CONTENTS = 256, 96, 24, 4
GAIN, CEILING, SHAPE, CONTRAST, RATIO = 0.12, 0.80, 0.45, 0.15, 5.0
SMALL = {"pretraining.epochs": 0, "data.split_fractions": [1.0, 0.0, 0.0], "data.flip_horizontal": False}


def arrays(source: PhantomSource) -> dict[str, np.ndarray]:
    records = list(map(source.read, source.keys()))
    return {name: np.stack([np.asarray(record[name]) for record in records]) for name in ("image", "mask", "label")}


def fitted(config: Any, source: PhantomSource, steps: int) -> Any:
    model = ms.create("us_style", config.replace({"training.steps_per_epoch": steps, "training.epochs": 1}))
    model.compile()
    (stage,) = model.stages(source)
    stage.begin()
    model.fit(stage.batches(0), steps_per_epoch=steps, epochs=1, verbose=0)
    return model


def unlike_pairs(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each image as content, with one image of every other texture as style: positions."""
    rng = numpy_generator(seed, "unlike pairs")
    pairs = [
        (content, rng.choice(np.flatnonzero(labels == other)))
        for content in range(len(labels))
        for other in np.unique(labels)
        if other != labels[content]
    ]
    first, second = np.array(pairs).T
    return first, second


def judged(model: Any, space: StyleSpace, test: dict[str, np.ndarray], seed: int, picture: Path | None) -> dict[str, float]:
    signatures = model.signatures()
    first, second = unlike_pairs(test["label"], seed)
    content, style, masks = test["image"][first], test["image"][second], test["mask"][first]
    made = np.concatenate(
        [
            signatures["serving_default"](
                content=tf.constant(content[part]), style=tf.constant(style[part]), seed=tf.constant(part, tf.int64)
            )["image"].numpy()
            for part in np.array_split(np.arange(len(content)), 6)
        ]
    )
    result = {
        "fidelity": space.fidelity(made, content, style),
        "correlation": shape_correlation(made, content),
        "vessel_darker": -(label_contrast(made, masks, 1, signed=True) or 0.0),
    }
    draws = {}
    for name in ("coherent", "iid"):
        draws[name] = [
            signatures["prior"](
                content=tf.constant(np.repeat(image[None], DRAWS, 0)),
                seed=tf.range(DRAWS, dtype=tf.int64),
                coherent=tf.fill([DRAWS], name == "coherent"),
            )["image"].numpy()
            for image in test["image"][:CONTENTS]
        ]
        result[f"spread_{name}"] = float(np.mean([space.spread(images) for images in draws[name]]))
    if picture is not None:
        shown = np.arange(12)
        rows = [Row("Content", content[shown]), Row("Style", style[shown]), Row("SYNTHETIC", made[shown])]
        rows += [Row(f"SYNTHETIC, prior, {name}", images[0][:12]) for name, images in draws.items()]
        write_sheet(picture, "Contents in other styles", rows)
    return result


def one_site(seed: int, site: str, steps: int, pictures: Path | None) -> dict[str, Any]:
    base = ms.load_config("us_style", overrides={**SMALL, "seed": seed, "network.adain_site": site})
    train, test = (arrays(PhantomSource("ultrasound", n, seed=2 * seed + i)) for i, n in enumerate((TRAIN, TEST)))
    space = StyleSpace(train["image"])
    source = PhantomSource("ultrasound", TRAIN, seed=2 * seed)
    result: dict[str, Any] = {}
    for name, overrides in ((site, {}), (f"{site}_without_style", {"losses.style": [0.0, 0.0, 0.0]})):
        started = time.time()
        model = fitted(base.replace(overrides), source, steps)
        picture = None if pictures is None else pictures / f"{name}_{seed}.png"
        result[name] = {**judged(model, space, test, seed, picture), "seconds": round(time.time() - started, 1)}
        print(seed, name, json.dumps(result[name]), flush=True)
    return result


def checks(result: dict[str, Any], site: str) -> dict[str, float]:
    """Margin of each inequality; all must be at least 0."""
    full, without = result[site], result[f"{site}_without_style"]
    return {
        f"{site}: gain in fidelity": without["fidelity"] - GAIN - full["fidelity"],
        f"{site}: fidelity": CEILING - full["fidelity"],
        f"{site}: correlation": full["correlation"] - SHAPE,
        f"{site}: vessels darker": full["vessel_darker"] - CONTRAST,
        f"{site}: coherent over iid spread": full["spread_coherent"] / max(full["spread_iid"], 1e-9) - RATIO,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sites", nargs="+", default=list(SITES), choices=list(SITES))
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    results: dict[int, dict[str, Any]] = {seed: {"seed": seed, "margins": {}} for seed in arguments.seeds}
    holds = True
    for number, site in enumerate(arguments.sites, start=1):
        for seed, result in results.items():
            result.update(one_site(seed, site, arguments.steps, arguments.pictures))
            margins = checks(result, site)
            result["margins"] |= margins
            holds &= min(margins.values()) >= 0.0
            for name, margin in margins.items():
                print(f"seed {seed}, {name}: margin {margin:+.3f}", flush=True)
        claim = CLAIM.format(" and ".join(SITES[each] for each in arguments.sites[:number]))
        found = {"claim": claim, "holds": holds, "steps": arguments.steps, "seeds": list(results.values())}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")  # after each site, since a run takes a while
    print("the claim holds" if holds else "the claim does NOT hold")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
