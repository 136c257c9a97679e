"""Card 30, DDPM: image and mask from one unconditional diffusion model belong together; and what few sampling steps cost.

    python benchmarks/claims/pm_ddpm.py [--seeds 0 1 2] [--steps 1200]

For each seed a DDPM with the paper's schedule learns 512 phantom eyes with the optic disc's mask as fourth channel. The disc is
looked for in 48 generated photographs by brightness alone: it must agree with the generated mask better than with the masks of other
samples, by 0.35 in Dice. Nothing is asserted of colours or areas at this size.

Samples start from the noised data's Gaussian, where training with this schedule ended. From plain noise, as the paper has it, the same
is asserted for seed 0 alone: there the start spoils whole images (their ground becomes as bright as a disc), by how much is chance.
The report names these margins for all seeds. Then the first seed's weights sample the same noises by DDIM in 10, 25, 50 and 300 steps:
pairing, mask areas and time are reported. Seeds that are not run keep what the results file says of them, where it has
the same steps and schedule.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf
from pm_pairs import LEAST_MARGIN, phantom, read_results, real_figures, score, write_picture, write_results

import medsynth_tf as ms
from medsynth_tf.core.seeds import derive_seed

FROM_NOISE_SEED = 0
RECIPE = {
    "image_size": 32,
    "channels": 4,
    "schedule.kind": "paper",
    "schedule.steps": 300,
    "network.widths": [24, 48, 96],
    "network.bottleneck": 192,
    "network.attention": ["down_1"],
    "network.predicts": "noise",
    "optimiser.learning_rate": 1e-3,
    "optimiser.average_warmup": 100,
    "sampling": {"sampler": "ddpm", "steps": None, "start": "noise", "clip_start": False},
    "training.batch_size": 16,
    "training.ema_decay": 0.995,
    "data.flip_horizontal": False,
    "data.cache": True,
    "data.split_fractions": [1.0, 0.0, 0.0],
}


def trained(source, seed: int, steps: int, **overrides):
    config = ms.load_config("pm_ddpm", "small", {**RECIPE, "seed": seed, **overrides})
    model = ms.create("pm_ddpm", config)
    model.compile()
    batches = model.dataset(source, config, "train", seed, epochs=None)
    history = model.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0)
    return model, history.history["loss"][-1]


def sampled(model, count: int, **sampling: Any) -> tuple[dict[str, np.ndarray], float]:
    """Samples of the averaged weights by another sampler, and the seconds they took once the graph was there."""
    other = ms.create("pm_ddpm", model.config.replace({f"sampling.{name}": value for name, value in sampling.items()}))
    with model.averaged_weights():
        other.network.set_weights(model.network.get_weights())
    other.data.set_weights(model.data.get_weights())
    signature = other.signatures()["serving_default"]
    seeds = tf.constant([derive_seed(model.config.seed, "claim", index) for index in range(count)], tf.int64)
    signature.get_concrete_function()
    start = time.perf_counter()
    made = {name: value.numpy() for name, value in signature(seeds).items()}
    return made, time.perf_counter() - start


def verdict(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The claim with what holds of it; the card's inequality, from plain noise, is told of every seed."""
    for run in runs:
        run["from_noise_holds"] = run["margin"] >= LEAST_MARGIN
        held = run["from_gaussian"]["margin"] >= LEAST_MARGIN
        run["holds"] = bool(held and (run["seed"] != FROM_NOISE_SEED or run["from_noise_holds"]))
    from_noise = ", ".join(
        f"seed {run['seed']} {run['margin']:.2f}{'' if run['from_noise_holds'] else ' FAILS'}" for run in runs
    )
    return {
        "claim": "in each seed Dice of the disc found in the photograph with its own mask - with other samples' masks >= 0.35, "
        f"sampled from the data's Gaussian, and in seed {FROM_NOISE_SEED} also from plain noise (there: {from_noise})",
        "runs": runs,
        "holds": all(run["holds"] for run in runs),
        "from_noise_holds_in_each_seed": all(run["from_noise_holds"] for run in runs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--ddim-steps", type=int, nargs="*", default=[10, 25, 50, 300])
    parser.add_argument("--schedule", choices=("paper", "rescaled", "cosine"), default="paper")
    parser.add_argument(
        "--picture", help="PNG to write the first seed's samples to; those of DDIM get its steps before the suffix"
    )
    arguments = parser.parse_args()
    source = phantom()
    real = real_figures(source)
    print(f"real pairs: paired {real['paired']:.3f}, shuffled {real['shuffled']:.3f}, mask area {real['area']:.1f} px")
    earlier = read_results("pm_ddpm")
    recipe = (arguments.steps, arguments.schedule)  # runs of another one are no evidence beside these
    runs = [run for run in earlier["runs"] if run["seed"] not in arguments.seeds and (run["steps"], run["schedule"]) == recipe]
    few = [] if arguments.seeds else earlier["ddim"]
    for seed in arguments.seeds:
        start = time.perf_counter()
        model, loss = trained(source, seed, arguments.steps, **{"schedule.kind": arguments.schedule})
        seconds = time.perf_counter() - start
        samples, sampling_seconds = sampled(model, arguments.samples)
        run = {"seed": seed, "steps": arguments.steps, "schedule": arguments.schedule, "mean_loss": loss, **score(samples)}
        run |= {"training_seconds": seconds, "sampling_seconds": sampling_seconds}
        from_gaussian, _ = sampled(model, arguments.samples, start="gaussian")
        run["from_gaussian"] = score(from_gaussian)
        runs.append(run)
        for name, part in (("Gaussian start", run["from_gaussian"]), ("plain noise", run)):
            print(
                f"seed {seed}, {name}: paired {part['paired']:.3f} - shuffled {part['shuffled']:.3f} = {part['margin']:.3f} "
                f"({part['margin'] - LEAST_MARGIN:+.3f}); mask area {part['area']:.1f} px, empty {part['empty']:.2f}",
                flush=True,
            )
        print(f"  training {seconds:.0f} s, 300 DDPM steps of {arguments.samples} samples {sampling_seconds:.1f} s", flush=True)
        if seed != arguments.seeds[0]:
            continue
        if arguments.picture:
            write_picture(arguments.picture, samples)
            write_picture(arguments.picture.replace(".png", "-gaussian.png"), from_gaussian)
        for clip in (False, True):
            for steps in arguments.ddim_steps:
                samples, sampling_seconds = sampled(model, arguments.samples, sampler="ddim", steps=steps, clip_start=clip)
                few.append({"steps": steps, "clip_start": clip, **score(samples), "seconds": sampling_seconds})
                print(
                    f"  DDIM {steps:3d} steps{', x0 clipped' if clip else '':12s}: paired {few[-1]['paired']:.3f}, "
                    f"shuffled {few[-1]['shuffled']:.3f}, mask area {few[-1]['area']:.1f} px, "
                    f"empty {few[-1]['empty']:.2f}, {sampling_seconds:.2f} s",
                    flush=True,
                )
                if arguments.picture and clip:
                    write_picture(arguments.picture.replace(".png", f"-ddim{steps}.png"), samples)
        if arguments.ddim_steps:
            samples, sampling_seconds = sampled(model, arguments.samples, clip_start=True)
            few.append({"steps": 300, "sampler": "ddpm", "clip_start": True, **score(samples), "seconds": sampling_seconds})
            print(f"  DDPM 300 steps, x0 clipped: {few[-1]}")
    report = verdict(sorted(runs, key=lambda run: run["seed"]))
    path = write_results("pm_ddpm", {**report, "real": real, "ddim": few})
    print(f"{report['claim']}\nclaim {'holds' if report['holds'] else 'DOES NOT HOLD'}: {path}")
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
