"""Train step of semantic_retina against a PyTorch twin of the same networks and losses, alternating in one run.

    python benchmarks/train_step.py [--profile small] [--steps 20] [--threads 2] [--json FILE]

The twin runs in `.bench-venv` (make bench-env); without it our side is printed alone. Both do the same work: one generator pass, one
discriminator pass on fake and real together, both players' gradients, Adam, the weight average.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = Path(__file__).resolve().parents[1]


class Ours:
    def __init__(self, config, threads):
        import tensorflow as tf

        from medsynth_tf.methods.saving import create

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        batch, size = config.training.batch_size, config.image_size
        self.model = create(config.slug, config)
        self.model.compile()
        rng = tf.random.Generator.from_seed(0)
        one = {
            "image": tf.cast(rng.uniform([batch, size, size, 3], 0, 256, tf.int32), tf.uint8),
            "label_map": tf.cast(rng.uniform([batch, size, size], 0, len(config.labels), tf.int32), tf.uint8),
            "seed": tf.range(batch, dtype=tf.int64),
        }
        self.batches = iter(tf.data.Dataset.from_tensors(one).repeat())
        self.train = self.model.make_train_function()

    def parameters(self):
        parts = {name: getattr(self.model, name) for name in ("generator", "discriminator", "encoder")}
        return {k: sum(v.shape.num_elements() for v in part.trainable_variables) for k, part in parts.items() if part}

    def step(self):
        start = time.perf_counter()
        logs = self.train(self.batches)
        {name: float(value) for name, value in logs.items()}
        return time.perf_counter() - start


class Twin:
    def __init__(self, config, threads):
        from medsynth_tf.networks.spade_generator import block_plan

        python = ROOT / ".bench-venv" / "bin" / "python"
        script = ROOT / "benchmarks" / "torch_twin" / "spade_step.py"
        self.process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        plan = block_plan(config.generator.filters, config.generator.upsampling)
        self._say(json.dumps({**config.to_dict(), "plan": plan, "threads": threads}))

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def parameters(self):
        self._say("parameters")
        return json.loads(self.process.stdout.readline())

    def step(self):
        self._say("step")
        return float(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="small")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from medsynth_tf.core.config import parse_overrides
    from medsynth_tf.core.registry import load_config

    config = load_config("semantic_retina", arguments.profile, parse_overrides(arguments.overrides))
    sides = {"medsynth_tf": Ours(config, arguments.threads)}
    if (ROOT / ".bench-venv" / "bin" / "python").exists():
        sides["pytorch"] = Twin(config, arguments.threads)
        counts = {name: side.parameters() for name, side in sides.items()}
        if counts["medsynth_tf"] != counts["pytorch"]:
            sys.exit(f"the twin is no twin: {counts}")
    seconds = {name: [] for name in sides}
    for index in range(arguments.steps + 3):
        for name, side in sides.items():
            taken = side.step()
            if index >= 3:  # the first steps trace, allocate and choose algorithms
                seconds[name].append(taken)
    result = {
        "profile": arguments.profile,
        "batch": config.training.batch_size,
        "size": config.image_size,
        "threads": arguments.threads,
    }
    result["median_seconds"] = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in result["median_seconds"].items():
        print(f"{name:12s} {1000 * median:8.1f} ms a step (median of {arguments.steps})")
    if "pytorch" in sides:
        result["ratio"] = result["median_seconds"]["medsynth_tf"] / result["median_seconds"]["pytorch"]
        print(f"ratio medsynth_tf / pytorch = {result['ratio']:.2f}")
    else:
        print("no PyTorch twin: make bench-env")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
