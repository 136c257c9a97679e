"""Clusters as a table for people to name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from medsynth_tf.core.files import replacing_file

UNNAMED = -1


def write_clusters(path: Path, ids: list[str], found: dict[str, np.ndarray]) -> None:
    """CSV of id, cluster and the cluster's label, largest cluster first, whole or not at all."""
    order = np.lexsort((np.arange(len(ids)), found["assignments"], -found["sizes"][found["assignments"]]))
    with replacing_file(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "cluster", "label"])
        for i in order:
            cluster = int(found["assignments"][i])
            label = int(found["labels"][cluster])
            table.writerow([ids[i], cluster, "" if label == UNNAMED else label])
