"""The table of semantic_retina's paper from any generator's folder: a U-Net on 0, 25, 50 and 75 % synthetic pairs.

    medsynth synthesize --server … --model … --data folder:REAL --count 2214 --out SYNTHETIC
    python benchmarks/segmentation_study.py --real folder:REAL --synthetic folder:SYNTHETIC --seeds 0 1 2 --out table.json

`--real` and `--synthetic` are sources of photographs with label maps. The U-Net learns from the real training split and as many
synthetic pairs as the share asks for, and is tested on the real test split: per-image precision, recall and F1, averaged.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import medsynth_tf as ms
from medsynth_tf.core.config import parse_overrides
from medsynth_tf.core.files import write_text
from medsynth_tf.methods.translation.semantic_retina.segmentation import SHARES, share_table_text, synthetic_share_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", required=True, metavar="SOURCE")
    parser.add_argument("--synthetic", required=True, metavar="SOURCE")
    parser.add_argument("--profile", default="paper", help="of semantic_retina: its labels, image_size, segmenter and splits")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    arguments = parser.parse_args()
    config = ms.load_config("semantic_retina", arguments.profile, parse_overrides(arguments.overrides))
    rows = synthetic_share_table(
        ms.open_source(arguments.real), ms.open_source(arguments.synthetic), config, arguments.shares, arguments.seeds
    )
    print(share_table_text(rows))
    if arguments.out:
        write_text(arguments.out, json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
