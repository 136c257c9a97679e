"""Train steps of methods against PyTorch twins of the same networks and losses, alternating in one run.

    python benchmarks/methods.py [SLUG ...] [--profile small] [--steps 20] [--threads 2] [--json FILE]

The twins run in `.bench-venv` (make bench-env); without it our side is printed alone. Both sides do the same work: the same layers with
equal numbers of parameters, which is checked, the same losses, gradients, optimisers and weight averages. Each step is timed whole.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 3  # the first steps trace, allocate and choose algorithms


@dataclasses.dataclass(frozen=True)
class Case:
    """A method with a twin: its script, the method's networks by name, and what the twin must know beside the configuration."""

    script: str
    networks: tuple[str, ...]
    codes: Callable[[Any], int]
    plan: Callable[[Any], Any] = lambda config: None


def _blocks(config: Any) -> Any:
    from medsynth_tf.networks.spade_generator import block_plan

    return block_plan(config.generator.filters, config.generator.upsampling)


def _strides(config: Any) -> Any:
    from medsynth_tf.networks.dcgan import plan

    return dataclasses.astuple(plan(config.image_size))


CASES = {
    "semantic_retina": Case(
        "spade_step.py", ("generator", "discriminator", "encoder"), lambda config: len(config.labels), _blocks
    ),
    "pm_dcgan": Case("dcgan_step.py", ("generator", "discriminator"), lambda config: 2, _strides),
    "pm_ddpm": Case("ddpm_step.py", ("network",), lambda config: 2),
}


class Ours:
    def __init__(self, case: Case, config: Any):
        import tensorflow as tf

        from medsynth_tf.methods.saving import create

        batch, size = config.training.batch_size, config.image_size
        self.case, self.model = case, create(config.slug, config)
        self.model.compile()
        rng = tf.random.Generator.from_seed(0)
        one = {
            "image": tf.cast(rng.uniform([batch, size, size, 3], 0, 256, tf.int32), tf.uint8),
            "label_map": tf.cast(rng.uniform([batch, size, size], 0, case.codes(config), tf.int32), tf.uint8),
            "seed": tf.range(batch, dtype=tf.int64),
        }
        self.batches = iter(tf.data.Dataset.from_tensors(one).repeat())
        self.train = self.model.make_train_function()

    def parameters(self) -> dict[str, int]:
        parts = {name: getattr(self.model, name) for name in self.case.networks}
        return {k: sum(v.shape.num_elements() for v in part.trainable_variables) for k, part in parts.items() if part}

    def step(self) -> float:
        start = time.perf_counter()
        logs = self.train(self.batches)
        {name: float(value) for name, value in logs.items()}
        return time.perf_counter() - start


class Twin:
    def __init__(self, case: Case, config: Any, threads: int):
        python = ROOT / ".bench-venv" / "bin" / "python"
        script = ROOT / "benchmarks" / "torch_twin" / case.script
        self.process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps({**config.to_dict(), "plan": case.plan(config), "threads": threads}))

    def _say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def parameters(self) -> dict[str, int]:
        self._say("parameters")
        return json.loads(self.process.stdout.readline())

    def step(self) -> float:
        self._say("step")
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(slug: str, profile: str, overrides: dict[str, Any], steps: int, threads: int) -> dict[str, Any]:
    """Median seconds of both sides' steps, and their ratio."""
    from medsynth_tf.core.registry import load_config

    case, config = CASES[slug], load_config(slug, profile, overrides)
    sides: dict[str, Any] = {"medsynth_tf": Ours(case, config)}
    if (ROOT / ".bench-venv" / "bin" / "python").exists():
        sides["pytorch"] = Twin(case, config, threads)
        counts = {name: side.parameters() for name, side in sides.items()}
        if counts["medsynth_tf"] != counts["pytorch"]:
            sys.exit(f"{slug}: the twin is no twin: {counts}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(steps + WARM_UP):
        for name, side in sides.items():
            taken = side.step()
            if index >= WARM_UP:
                seconds[name].append(taken)
    if "pytorch" in sides:
        sides["pytorch"].close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {"profile": profile, "batch": config.training.batch_size, "size": config.image_size, "threads": threads}
    result |= {"median_seconds": medians}
    if "pytorch" in medians:
        result["ratio"] = medians["medsynth_tf"] / medians["pytorch"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slugs", nargs="*", metavar="SLUG", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--profile", default="small")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    unknown = set(arguments.slugs) - set(CASES)
    if unknown:
        parser.error(f"no twin of {', '.join(sorted(unknown))}; twins: {', '.join(CASES)}")

    import tensorflow as tf

    from medsynth_tf.core.config import parse_overrides

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    overrides, results = parse_overrides(arguments.overrides), {}
    for slug in arguments.slugs or CASES:
        results[slug] = found = measure(slug, arguments.profile, overrides, arguments.steps, arguments.threads)
        times = ", ".join(f"{name} {1000 * median:.1f} ms" for name, median in found["median_seconds"].items())
        ratio = f"ratio {found['ratio']:.2f}" if "ratio" in found else "no PyTorch twin: make bench-env"
        print(f"{slug:16s} {times} a step (medians of {arguments.steps}); {ratio}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
