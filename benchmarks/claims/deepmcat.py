"""Card 26: training on the clusters of its own features makes a network's clusters pure, without a label.

    python benchmarks/claims/deepmcat.py [--seeds 0 1 2] [--epochs 16] [--pictures FOLDER]

`phantom:cardiac_views`, 40×40, 600 images of four views, k = 32. Purity of clusters is measured before training (features of random
weights), after it, and of k-means on the z-scored pixels of random views. For the record: the same with views drawn .6, .25, .1, .05;
and two controls: training on clusters permuted over the images, and no training at all but for the statistics of the batch norms,
which a random network lacks.
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
from medsynth_tf.core.files import write_text
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.phantoms.cardiac_views import VIEWS
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.methods.curation.deepmcat.clusters import RoundLog
from medsynth_tf.methods.curation.deepmcat.data import ImageSet, in_order
from medsynth_tf.metrics.clustering import purity
from medsynth_tf.ops.clustering import kmeans

RESULTS = Path(__file__).parent / "results" / "deepmcat.json"
IMAGES, OVER_RANDOM, OVER_PIXELS, LEAST, COMPARED = 600, 0.05, 0.03, 0.96, 3
CLAIM = (
    f"in each seed purity after training is at least {LEAST}, at least that of the random network + {OVER_RANDOM} and of pixels + "
    f"{OVER_PIXELS}; NMI with the clustering before is higher on the mean of the last three than of the first three clusterings; "
    "with imbalanced views the rarest has a cluster of its own"
)


def trained(
    source: PhantomSource, seed: int, epochs: int, permuted: bool = False, learning: bool = True
) -> tuple[Any, list[RoundLog]]:
    """The model after all rounds, and what each clustering was worth; the first is of random weights.

    Args:
        permuted: deal each round's clusters out anew among the images before training.
        learning: without it all rates are 0, and only the moving statistics of batch norms follow the images.
    """
    config = ms.load_config(
        "deepmcat", "small", {"seed": seed, "training.epochs": epochs, "data.split_fractions": [1.0, 0.0, 0.0]}
    )
    model = ms.create("deepmcat", config)
    rate = config.optimiser.learning_rate if learning else 0.0
    model.compile(tf.keras.optimizers.SGD(rate, config.optimiser.momentum), tf.keras.optimizers.SGD(rate))
    images = ImageSet(source, config, "train")
    stages = model.stages(source)
    logs = []
    for number, stage in enumerate(stages):
        logs.append(model.cluster_images(images, number))
        model.reset_top_layer(number)
        if permuted:
            order = numpy_generator(seed, "permuted", number).permutation(IMAGES)
            model.assignments.assign(model.assignments.numpy()[order])
        model.fit(stage.batches(0), epochs=1, steps_per_epoch=stage.steps_per_epoch, verbose=0)
    logs.append(model.cluster_images(images, len(stages)))
    return model, logs


def purity_of_pixels(model: Any, source: PhantomSource, seed: int) -> float:
    """Of k-means on the z-scored pixels of one random view of each image."""
    images = ImageSet(source, model.config, "train")
    batches = images.batches(in_order(IMAGES), 1, 0, whole=False)
    salt = derive_seed(seed, "pixels") % 2**62
    views = [model.views(batch["image"], tf.bitwise.bitwise_xor(batch["seed"], salt)).numpy() for batch in batches]
    pixels = np.concatenate(views).reshape(IMAGES, -1)
    found = kmeans(pixels, model.config.clustering.clusters, derive_seed(seed, "pixels") % 2**32)
    return purity(found.assignments, np.asarray(images.labels))


def views_with_a_cluster(assignments: np.ndarray, labels: np.ndarray) -> list[int]:
    """The labels that are the commonest of some cluster."""
    return sorted({int(np.bincount(labels[assignments == cluster]).argmax()) for cluster in np.unique(assignments)})


def one_seed(seed: int, epochs: int, picture: Path | None) -> dict[str, Any]:
    even = PhantomSource("cardiac_views", IMAGES, seed=2 * seed)
    model, logs = trained(even, seed, epochs)
    nmi = [log.nmi_previous for log in logs[1:]]
    run: dict[str, Any] = {
        "seed": seed,
        "pixels": purity_of_pixels(model, even, seed),
        "random_network": logs[0].purity,
        "trained": logs[-1].purity,
        "nmi_labels": [logs[0].nmi_labels, logs[-1].nmi_labels],
        "nmi_previous": [float(np.mean(nmi[:COMPARED])), float(np.mean(nmi[-COMPARED:]))],
        "purity_by_round": [log.purity for log in logs],
    }
    if picture is not None:
        write_picture(picture, even, model)
    _, control = trained(even, seed, epochs, permuted=True)
    run["permuted"] = control[-1].purity
    _, control = trained(even, seed, 2, learning=False)
    run["batch_statistics_alone"] = control[-1].purity
    imbalanced = PhantomSource("cardiac_views", IMAGES, seed=2 * seed + 1, balance="imbalanced")
    model, logs = trained(imbalanced, seed, epochs)
    labels = np.array([key.label for key in imbalanced.keys()])
    run["imbalanced"] = {
        "views": np.bincount(labels).tolist(),
        "random_network": logs[0].purity,
        "trained": logs[-1].purity,
        "views_with_a_cluster": views_with_a_cluster(model.assignments.numpy(), labels),
    }
    run["margins"] = {
        "over the random network": run["trained"] - run["random_network"] - OVER_RANDOM,
        "over pixels": run["trained"] - run["pixels"] - OVER_PIXELS,
        "purity": run["trained"] - LEAST,
        "steadier clusters": run["nmi_previous"][1] - run["nmi_previous"][0],
    }
    rare = int(np.bincount(labels).argmin())
    run["holds"] = min(run["margins"].values()) >= 0 and rare in run["imbalanced"]["views_with_a_cluster"]
    return run


def write_picture(path: Path, source: PhantomSource, model: Any, rows: int = 8, columns: int = 8) -> None:
    """Images of the largest clusters, a row each."""
    found, keys = model.export_clusters(), source.keys()
    bands = []
    for cluster in np.argsort(-found["sizes"], kind="stable")[:rows]:
        members = np.flatnonzero(found["assignments"] == cluster)[:columns]
        images = [source.read(keys[i])["image"].astype(np.float64) for i in members]
        pictures = [np.rint(255 * (image - image.min()) / np.ptp(image)).astype(np.uint8) for image in images]
        counts = np.bincount([keys[i].label for i in np.flatnonzero(found["assignments"] == cluster)], minlength=len(VIEWS))
        named = ", ".join(f"{count} {view}" for view, count in zip(VIEWS, counts) if count)
        bands.append(Row(f"Cluster {cluster}: {named}", np.stack(pictures)))
    write_sheet(path, "The largest clusters, found without labels", bands)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--pictures", type=Path, help="folder for a sheet of the first seed's clusters")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        started = time.perf_counter()
        first = arguments.pictures if seed == arguments.seeds[0] else None
        run = one_seed(seed, arguments.epochs, first and first / "clusters.png")
        runs.append(run)
        print(
            f"seed {seed}: purity of pixels {run['pixels']:.3f}, random network {run['random_network']:.3f}, trained "
            f"{run['trained']:.3f}, permuted {run['permuted']:.3f}, "
            f"statistics alone {run['batch_statistics_alone']:.3f}; NMI(t, t-1) {run['nmi_previous'][0]:.3f} -> "
            f"{run['nmi_previous'][1]:.3f}; imbalanced {run['imbalanced']['random_network']:.3f} -> {run['imbalanced']['trained']:.3f} "
            f"({time.perf_counter() - started:.0f} s)"
        )
        print("  margins: " + ", ".join(f"{name} {value:+.3f}" for name, value in run["margins"].items()), flush=True)
    report = {
        "claim": CLAIM,
        "holds": all(run["holds"] for run in runs),
        "smallest_margin": min(min(run["margins"].values()) for run in runs),
        "settings": {"epochs": arguments.epochs, "images": IMAGES},
        "seeds": runs,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, json.dumps(report, indent=2) + "\n")
    print("the claim holds" if report["holds"] else "THE CLAIM DOES NOT HOLD")
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
