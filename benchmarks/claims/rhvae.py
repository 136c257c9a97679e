"""Card 17: samples along the learned geometry are nearer to real images than samples of the prior, and cover them as well.

    python benchmarks/claims/rhvae.py [--seeds 0 1 2] [--epochs 1500] [--settings d2 d10]

`phantom:shapes`, 32×32, one class of three unlike sub-types: 60 training images with two latent dimensions (d2), or 40 with ten
(d10), and 3000 test images. A VAE and an RHVAE of the same networks learn them; 500 samples of each sampler are judged by *prec*, the
mean RMS distance of a sample to the nearest test image, and *cov*, that of a test image to the nearest sample.
For the record: the same of Gaussian mixtures, of a VampPrior (first seed), of the paper's other samplers, and the distance to
training images.
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
from PIL import Image
from scipy.spatial.distance import cdist

import medsynth_tf as ms
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.phantoms import PhantomSource

RESULTS = Path(__file__).parent / "results" / "rhvae.json"
TEST_IMAGES, SAMPLES, SIZE = 3000, 500, 32
SETTINGS = {
    "d2": {"images": 60, "latent_size": 2, "metric.temperature": 0.8, "factor": 0.85},
    "d10": {"images": 40, "latent_size": 10, "metric.temperature": 1.5, "factor": 0.7},
}
RECIPE = {
    "image_size": [SIZE, SIZE],
    "classes": 1,
    "metric.regularisation": 1e-3,
    "flow.steps": 3,
    "flow.step_size": 1e-3,
    "flow.beta_zero_sqrt": 0.3,
    # the authors' training: with the true momentum and bound seed 1 of d2 blows up in its first ten passes
    "flow.momentum_init": "reference",
    "flow.elbo": "reference",
    "flow.gradient": "detached",
    "sampling.steps": 50,
    "sampling.leapfrog_steps": 15,
    "sampling.step_size": 0.03,
    "learning_rate": 1e-3,
    "patience": 50,
    "training.steps_per_epoch": None,
    "data.split_fractions": [1.0, 0.0, 0.0],
    "data.cache": True,
}
CLAIM = (
    "in each seed prec(HMC) <= 0.85 prec(VAE prior), prec(HMC) <= 0.85 prec(RHVAE prior) and cov(HMC) <= cov(VAE prior) with 2 latent "
    "dimensions and 60 images; with 10 dimensions and 40 images the same with 0.7 in the place of 0.85"
)


def images_of(source: PhantomSource) -> np.ndarray:
    """All images, float32 [N, pixels] in [0, 1]."""
    return np.stack([source.read(key)["image"] for key in source.keys()]).reshape(source.count, -1).astype(np.float32) / 255


def fitted(source: PhantomSource, config: Any) -> Any:
    """The generator after its stage: `patience` counts passes, all of which are steps of one Keras epoch here."""
    method = ms.create("rhvae", config)
    method.compile()
    (stage,) = method.stages(source)
    stage.begin()
    steps = config.training.epochs
    stage.model.fit(stage.batches(0), epochs=1, steps_per_epoch=steps, callbacks=list(stage.callbacks), verbose=0)
    stage.end()
    return stage.model


def drawn(model: Any, sampler: str, seed: int) -> tuple[np.ndarray, float]:
    """Samples [500, pixels] and mean acceptance."""
    seeds = tf.constant([derive_seed(seed, "claim", index) for index in range(SAMPLES)], tf.int64)

    @tf.function
    def sample() -> tuple[tf.Tensor, tf.Tensor]:
        chains = model.sample(seeds, sampler)
        return model.decode(chains.states), chains.acceptance

    images, acceptance = sample()
    return images.numpy().reshape(SAMPLES, -1), float(np.mean(acceptance))


def judged(samples: np.ndarray, test: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """prec, cov, and the RMS distance to the nearest training image."""
    scale = samples.shape[-1] ** 0.5
    between = cdist(samples, test) / scale
    return {
        "prec": float(between.min(1).mean()),
        "cov": float(between.min(0).mean()),
        "memorisation": float((cdist(samples, train) / scale).min(1).mean()),
    }


def one_run(name: str, seed: int, epochs: int, vamp: bool, picture: Path | None) -> dict[str, Any]:
    own = dict(SETTINGS[name])
    count, factor = own.pop("images"), own.pop("factor")
    source = PhantomSource("shapes", count, size=SIZE, seed=2 * seed)
    train = images_of(source)
    test = images_of(PhantomSource("shapes", TEST_IMAGES, size=SIZE, seed=2 * seed + 1))
    shared = {**RECIPE, **own, "seed": seed, "training.batch_size": count, "training.epochs": epochs, "metric.centroids": count}
    run: dict[str, Any] = {"factor": factor, "samplers": {}, "passes": {}, "seconds": {}}
    samples: dict[str, np.ndarray] = {}
    arms = {
        "vae": ({"model": "vae", "sampling.sampler": "gmm"}, ("prior", "gmm")),
        "rhvae": ({"model": "rhvae"}, ("prior", "metric_hmc", "random_walk", "wrapped_normal")),
        "vamp": ({"model": "vamp", "sampling.sampler": "vamp", "vamp.pseudo_inputs": 20}, ("vamp",)),
    }
    for model_name, (overrides, samplers) in arms.items():
        if model_name == "vamp" and not vamp:
            continue
        started = time.perf_counter()
        model = fitted(source, ms.load_config("rhvae", "small", {**shared, **overrides}))
        run["passes"][model_name] = int(model.optimizer.iterations)
        run["seconds"][model_name] = round(time.perf_counter() - started, 1)
        for sampler in samplers:
            key = f"{model_name} {sampler}"
            samples[key], acceptance = drawn(model, sampler, seed)
            run["samplers"][key] = {**judged(samples[key], test, train), "acceptance": acceptance}
        if model_name == "rhvae":
            centroids = model.decode(model.latent_metric().centroids).numpy().reshape(count, -1)
            run["decoded_centroids"] = judged(centroids, test, train)
    hmc, vae, prior = (run["samplers"][key] for key in ("rhvae metric_hmc", "vae prior", "rhvae prior"))
    run["margins"] = {
        "prec, over VAE prior": factor * vae["prec"] - hmc["prec"],
        "prec, over RHVAE prior": factor * prior["prec"] - hmc["prec"],
        "cov, over VAE prior": vae["cov"] - hmc["cov"],
    }
    run["holds"] = all(margin >= 0 for margin in run["margins"].values())
    if picture is not None:
        write_picture(picture, [train, *(samples[key] for key in ("vae prior", "rhvae prior", "rhvae metric_hmc"))])
    return run


def write_picture(path: Path, rows: list[np.ndarray], columns: int = 16) -> None:
    """Training images, then samples of each kind, two rows each, enlarged twice."""
    bands = []
    for images in rows:
        tiles = np.rint(255 * images[: 2 * columns]).astype(np.uint8).reshape(2, columns, SIZE, SIZE)
        bands += [np.concatenate(list(row), 1) for row in tiles]
        bands.append(np.full([4, columns * SIZE], 96, np.uint8))
    sheet = Image.fromarray(np.concatenate(bands[:-1], 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path, optimize=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1500, help="most passes of each model")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--picture", type=Path, help="folder for a PNG of the first seed of each setting")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    seeds: list[dict[str, Any]] = []
    holds = True
    for seed in arguments.seeds:
        seeds.append({"seed": seed})
        for name in arguments.settings:
            first = seed == arguments.seeds[0]
            picture = arguments.picture / f"claim_{name}.png" if first and arguments.picture else None
            run = one_run(name, seed, arguments.epochs, first, picture)
            seeds[-1][name] = run
            holds &= run["holds"]
            print(f"{name}, seed {seed}: passes {run['passes']}, seconds {run['seconds']}")
            for key, found in {**run["samplers"], "decoded centroids": run["decoded_centroids"]}.items():
                print(f"  {key:22s} " + ", ".join(f"{what} {value:.4f}" for what, value in found.items()))
            margins = ", ".join(f"{what} {margin:+.4f}" for what, margin in run["margins"].items())
            print(f"  margins at factor {run['factor']}: {margins}: {'holds' if run['holds'] else 'DOES NOT HOLD'}", flush=True)
            report = {"claim": CLAIM, "holds": holds, "epochs": arguments.epochs, "seeds": seeds}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"the claim {'holds' if holds else 'DOES NOT HOLD'}: {arguments.out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
