"""Peak memory of DR-GAN at the paper's size: one forward pass and one training step at batch 1, each in a process of its own.

    python benchmarks/dr_gan_memory.py [--size 1280] [--what forward step] [--limit GIB] [--set KEY=VALUE]

The peak is that of the process's resident memory (getrusage), TensorFlow itself included. A process that grows beyond --limit is ended.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def measure(what, size, settings):
    import numpy as np
    import tensorflow as tf

    from medsynth_tf.core.config import parse_overrides
    from medsynth_tf.core.registry import load_config
    from medsynth_tf.methods.saving import create

    overrides = {"image_size": size, "training.batch_size": 1, **parse_overrides(settings)}
    config = load_config("dr_gan", "paper", overrides)
    started = time.perf_counter()
    model = create("dr_gan", config)
    built = time.perf_counter() - started
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.integers(0, 256, [1, size, size, 3]), tf.uint8),
        "label_map": tf.constant(rng.integers(0, len(config.labels), [1, size, size]), tf.uint8),
        "grade": tf.constant([2], tf.int64),
        "seed": tf.constant([7], tf.int64),
    }
    started = time.perf_counter()
    if what == "forward":
        image = model.signatures()["serving_default"](**{k: batch[k] for k in ("label_map", "seed", "grade")})["image"]
        assert image.shape == [1, size, size, 3]
        losses = {}
    else:
        model.compile()
        logs = model.make_train_function()(iter(tf.data.Dataset.from_tensors(batch)))
        losses = {name: float(value) for name, value in logs.items()}
        assert all(np.isfinite(list(losses.values())))
    return {
        "what": what,
        "size": size,
        "parameters": int(sum(v.shape.num_elements() for v in model.trainable_variables)),
        "seconds_build": built,
        "seconds_run": time.perf_counter() - started,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "losses": losses,
    }


def resident_gib(pid):
    """Resident memory of a process now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmRSS")), 0.0)


def measured_apart(command, limit):
    """What the command prints last, as JSON; ends it if it takes more memory than `limit` GiB."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if resident_gib(process.pid) > limit:
                process.kill()
                raise SystemExit(f"ended at more than {limit} GiB: {' '.join(command)}")
            time.sleep(0.1)
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}: {' '.join(command)}")
    return json.loads(output.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1280)
    parser.add_argument("--what", nargs="+", choices=["forward", "step"], default=["forward", "step"])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="replace settings of the paper's configuration"
    )
    parser.add_argument("--limit", type=float, default=20.0, help="GiB")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.what[0], arguments.size, arguments.set)))
        return 0
    figures = []
    for what in arguments.what:
        command = [sys.executable, __file__, "--inside", "--what", what, "--size", str(arguments.size), "--set", *arguments.set]
        figures.append(measured_apart(command, arguments.limit))
        print(
            "{what}: {size}x{size}, {parameters} parameters, peak {peak_gib:.2f} GiB, {seconds_run:.0f} s".format(**figures[-1])
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
