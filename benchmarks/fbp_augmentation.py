"""FBPAug of 512×512 slices: the layer's two backends against a loop over angles by scikit-image, alternating in one run.

    python benchmarks/fbp_augmentation.py [--size 512] [--angles 256] [--rounds 5]

The reference does what the authors' code does: `radon`, a filter of the projections by NumPy, `iradon` without a filter of its own.
Its two forms: one slice in one process (as it stands in a data pipeline), and two slices in two processes, so that it has both cores
as TensorFlow has. Times are seconds a slice; ratios are of medians, the reference over ours. The frequency filter has no angles.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from skimage.transform import iradon, radon

THREADS = 2
BATCH = 8
A, B = 30.0, 3.0


def by_scikit_image(attenuation: np.ndarray, angles: int) -> np.ndarray:
    """The loop; [N, N] → [N, N]."""
    size, degrees = len(attenuation), np.arange(angles) * 180 / angles
    sinogram = radon(attenuation, degrees, circle=True)  # [bins, angles]
    length = max(64, 2 ** int(np.ceil(np.log2(2 * np.ceil(np.sqrt(2) * size)))))
    taps = np.zeros(length)
    odd = np.arange(1, length // 2, 2)
    taps[0], taps[odd], taps[-odd] = 0.25, -1 / (np.pi * odd) ** 2, -1 / (np.pi * odd) ** 2
    ramp = 2 * np.fft.rfft(taps).real
    response = ramp * (1 + A * np.maximum(ramp, 0) ** B)
    filtered = np.fft.irfft(np.fft.rfft(sinogram, length, axis=0) * response[:, None], length, axis=0)[:size]
    return iradon(filtered.astype(np.float32), degrees, filter_name=None, circle=True)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--angles", type=int, default=256, help="of both; half the side, as in training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with multiprocessing.get_context("spawn").Pool(THREADS) as pool:
        import tensorflow as tf

        from medsynth_tf.data.phantoms import PhantomSource
        from medsynth_tf.layers.filtered_back_projection import FilteredBackProjection
        from medsynth_tf.ops.convolution_kernels import to_attenuation
        from medsynth_tf.ops.radon import inscribed_circle

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
        size, angles = arguments.size, arguments.angles
        phantom = PhantomSource("thorax_ct", THREADS, size=size, kernel="soft")  # slices as a scanner would give them
        drawn = [phantom.read(key)["image"][..., 0].astype(np.float32) for key in phantom.keys()]
        slices = np.tile(drawn, [BATCH // THREADS, 1, 1])
        inside = inscribed_circle(size).numpy()
        attenuation = np.where(inside, to_attenuation(tf.constant(slices)).numpy(), 0)
        layers = {backend: FilteredBackProjection(backend=backend, angles=angles) for backend in ("sinogram", "fourier2d")}
        ours = {
            backend: tf.function(
                lambda x, layer=layer: layer.with_kernels(x, tf.fill(tf.shape(x)[:1], A), tf.fill(tf.shape(x)[:1], B)),
                input_signature=[tf.TensorSpec([None, size, size], tf.float32)],
            )
            for backend, layer in layers.items()
        }
        arms: dict[str, tuple[Callable[[], Any], int]] = {
            "scikit-image, one process": (lambda: by_scikit_image(attenuation[0], angles), 1),
            "scikit-image, two processes": (
                lambda: pool.starmap(by_scikit_image, [(a, angles) for a in attenuation[:THREADS]], chunksize=1),
                THREADS,
            ),
            "sinogram": (lambda: ours["sinogram"](slices[:1]).numpy(), 1),
            f"sinogram, batch of {BATCH}": (lambda: ours["sinogram"](slices).numpy(), len(slices)),
            "fourier2d": (lambda: ours["fourier2d"](slices[:1]).numpy(), 1),
            f"fourier2d, batch of {BATCH}": (lambda: ours["fourier2d"](slices).numpy(), len(slices)),
        }
        reference = np.clip((by_scikit_image(attenuation[0], angles) - 1) * 1000 / (1 - 0.012041), -1000, 3000)
        change = [image[inside] for image in (reference, *(call(slices[:1]).numpy()[0] for call in ours.values()))]
        agreement = {backend: float(np.corrcoef(change[0], one)[0, 1]) for backend, one in zip(ours, change[1:])}
        for call, _ in arms.values():
            call()
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(arguments.rounds):
            for name, (call, count) in arms.items():
                times[name].append(seconds(call) / count)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        ratios = " ".join(
            f"{medians[reference] / median:8.1f}× {reference}"
            for reference in medians
            if reference.startswith("scikit") and reference != name
        )
        print(
            f"{name:28s} {1000 * median:9.1f} ms a slice ({1000 * min(times[name]):.1f} … {1000 * max(times[name]):.1f})  {ratios}"
        )
    print(f"correlation of the first slice with scikit-image's: {agreement}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(
                {"size": size, "angles": angles, "seconds": times, "medians": medians, "correlation": agreement}, file, indent=2
            )


if __name__ == "__main__":
    main()
