"""Peak memory and time of the multi-planar U-Net on whole volumes, each size in a process of its own.

    python benchmarks/multiplanar_memory.py [--size 128 256 512] [--views 1] [--filters 8] [--levels 3] [--slices 8]

The served signature segments a cube of noise of 1 mm voxels through oblique views. The peak is that of the process's
resident memory (getrusage), TensorFlow itself and the volume included. The size 16 shows what there is without a volume.
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


def measure(size, views, filters, levels, slices):
    import numpy as np
    import tensorflow as tf

    import medsynth_tf as ms

    overrides = {
        "network": {"filters": filters, "levels": levels},
        "planes.size": 2**levels * 2,
        "views": {"count": views, "slices": slices},
    }
    model = ms.create("multiplanar_unet", ms.load_config("multiplanar_unet", overrides=overrides))
    segment = model.signatures()["serving_default"]
    warm = segment(volume=tf.random.stateless_normal([1, 8, 8, 8], [0, 0]), spacing=tf.ones([1, 3]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    del warm
    started = time.perf_counter()
    made = segment(volume=tf.random.stateless_normal([1, size, size, size], [1, 2]), spacing=tf.ones([1, 3]))
    probability = made["probability"]
    assert bool(tf.reduce_all((probability >= 0) & (probability <= 1)))
    return {
        "size": size,
        "views": views,
        "filters": filters,
        "parameters": int(np.sum([v.shape.num_elements() for v in model.network.trainable_variables])),
        "seconds": time.perf_counter() - started,
        "volume_gib": size**3 * 4 / 2**30,
        "before_gib": before,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[16, 128, 256, 512])
    parser.add_argument("--views", type=int, nargs="+", default=[1])
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--here", action="store_true", help="measure in this process: one size, one number of views")
    arguments = parser.parse_args()
    own = (arguments.filters, arguments.levels, arguments.slices)
    if arguments.here:
        print(json.dumps(measure(arguments.size[0], arguments.views[0], *own)))
        return
    for size in arguments.size:
        for views in arguments.views:
            options = zip(("--size", "--views", "--filters", "--levels", "--slices"), (size, views, *own))
            command = [sys.executable, __file__, "--here", *(text for pair in options for text in map(str, pair))]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            memory = ", ".join(f"{name} {found[f'{name}_gib']:.3f}" for name in ("peak", "before", "volume"))
            print(f"{size}³, {views} view(s): {found['seconds']:.1f} s; GiB: {memory}", flush=True)


if __name__ == "__main__":
    main()
