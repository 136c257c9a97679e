"""The few-shot protocol of tvps and its baselines: ACC, AUC, F1, κ in % as mean ± deviation over splits, and training speed.

    python benchmarks/tvps_few_shot.py --data "phantom:vessel_classes?count=240" --shots 1 3 5 10 --splits 5

On two cores it runs the small profile; with `--profile paper` and a folder of photographs it is the paper's comparison.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import medsynth_tf as ms
from medsynth_tf.evaluation.few_shot import MEASURES, few_shot

ARMS = ("none", "mixup", "cutout", "cutmix", "tvps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="phantom:vessel_classes?count=240")
    parser.add_argument("--profile", default="small")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of training, for each run")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, help="JSON file of all runs")
    arguments = parser.parse_args()
    overrides = {"training.epochs": 1, "training.steps_per_epoch": arguments.steps}
    config = ms.load_config("tvps", arguments.profile, overrides)

    def report(run: dict[str, Any]) -> None:
        print(
            ", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in run.items()),
            flush=True,
        )

    result = few_shot(
        config,
        ms.open_source(arguments.data),
        {arm: {"augmentation": arm} for arm in arguments.arms},
        arguments.shots,
        arguments.splits,
        report,
    )
    print("\n| n | arm | " + " | ".join(MEASURES) + " | images/s |\n|" + "---|" * (len(MEASURES) + 3))
    for shots, arms in result["summary"].items():
        for arm, measured in arms.items():
            cells = [
                "–" if value["mean"] is None else f"{100 * value['mean']:.1f} ± {100 * value['std']:.1f}"
                for value in measured.values()
            ]
            speeds = [run["images_per_second"] for run in result["runs"] if run["arm"] == arm and str(run["shots"]) == shots]
            print(f"| {shots} | {arm} | " + " | ".join(cells) + f" | {sum(speeds) / len(speeds):.0f} |")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"data": arguments.data, "steps": arguments.steps, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
