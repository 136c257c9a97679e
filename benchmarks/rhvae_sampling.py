"""Sampling along the learned metric: all chains of a request as one batch in one graph, against the same sampler chain by chain.

    python benchmarks/rhvae_sampling.py [--chains 128] [--steps 50] [--repeats 5]

Both ways are compiled, take the same seeds, and give the same latent vectors, which is checked. They alternate in one run; medians
count. The metric is drawn at random: 60 centroids in ten dimensions, as a model of 60 images has.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from medsynth_tf.methods.generation.rhvae.config import SamplingConfig
from medsynth_tf.methods.generation.rhvae.sampling import geometric
from medsynth_tf.ops.riemannian import LatentMetric

CENTROIDS, SIZE, LEAST_RATIO = 60, 10, 10.0


def drawn_metric() -> LatentMetric:
    rng = np.random.default_rng(0)
    factors = np.tril(rng.normal(size=(CENTROIDS, SIZE, SIZE)) * 0.3) + np.eye(SIZE)
    matrices = factors @ factors.transpose(0, 2, 1)
    centroids = rng.normal(size=(CENTROIDS, SIZE))
    return LatentMetric(tf.constant(centroids, tf.float32), tf.constant(matrices, tf.float32), tf.ones([CENTROIDS]), 1.5, 1e-3)


def timed(work: Callable[[], tf.Tensor]) -> float:
    start = time.perf_counter()
    work().numpy()
    return time.perf_counter() - start


def compared(settings: SamplingConfig, chains: int, repeats: int) -> dict[str, float]:
    """Median seconds of both ways, their ratio and the mean acceptance."""
    metric = drawn_metric()
    seeds = tf.range(chains, dtype=tf.int64)
    sample = tf.function(
        lambda seeds: geometric(settings, metric, seeds)[:2], input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False
    )

    def batched() -> tf.Tensor:
        return sample(seeds)[0]

    def one_by_one() -> tf.Tensor:
        return tf.concat([sample(seeds[i : i + 1])[0] for i in range(chains)], 0)

    difference = np.abs(batched().numpy() - one_by_one().numpy()).max()
    if difference > 1e-2:
        sys.exit(f"the two ways differ by {difference}: no comparison")
    seconds: dict[str, list[float]] = {"batched": [], "one by one": []}
    for _ in range(repeats):
        seconds["batched"].append(timed(batched))
        seconds["one by one"].append(timed(one_by_one))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        **medians,
        "ratio": medians["one by one"] / medians["batched"],
        "acceptance": float(np.mean(sample(seeds)[1])),
        "difference": float(difference),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50, help="of each chain")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    fast = True
    for sampler in ("metric_hmc", "random_walk"):
        settings = SamplingConfig(sampler=sampler, steps=arguments.steps)
        found = compared(settings, arguments.chains, arguments.repeats)
        fast &= found["ratio"] >= LEAST_RATIO
        print(
            f"{sampler:12s} {arguments.chains} chains of {arguments.steps} steps: one batch {found['batched']:.3f} s, one by one "
            f"{found['one by one']:.3f} s (medians of {arguments.repeats}): {found['ratio']:.1f} times as fast (asked: "
            f"{LEAST_RATIO:.0f}); acceptance {found['acceptance']:.3f}; largest difference {found['difference']:.1e}",
            flush=True,
        )
    return 0 if fast else 1


if __name__ == "__main__":
    sys.exit(main())
