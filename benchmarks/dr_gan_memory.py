"""Peak memory of DR-GAN at the paper's size: one forward pass and one training step at batch 1, each in a process of its own.

    python benchmarks/dr_gan_memory.py [--size 1280] [--what forward step] [--set KEY=VALUE] [--json FILE]

The peak is that of the process's resident memory (getrusage), TensorFlow itself included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1280)
    parser.add_argument("--what", nargs="+", choices=["forward", "step"], default=["forward", "step"])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="replace settings of the paper's configuration"
    )
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.what[0], arguments.size, arguments.set)))
        return 0
    figures = []
    for what in arguments.what:
        command = [sys.executable, __file__, "--inside", "--what", what, "--size", str(arguments.size), "--set", *arguments.set]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures.append(json.loads(done.stdout.splitlines()[-1]))
        print(
            "{what}: {size}x{size}, {parameters} parameters, peak {peak_gib:.2f} GiB, {seconds_run:.0f} s".format(**figures[-1])
        )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
