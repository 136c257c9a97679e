"""The comparison in files: JSON with all numbers, CSV for a spreadsheet, arrays, pictures, and a page with all of it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse as Outline

from medsynth_tf.core.files import replacing_file, write_text
from medsynth_tf.data.gan_protocol_config import GANProtocolConfig
from medsynth_tf.evaluation.gan_eval.protocol import Group
from medsynth_tf.evaluation.gan_eval.visual import Ellipse, Projection
from medsynth_tf.evaluation.report import write_report
from medsynth_tf.evaluation.sheets import Row, write_sheet

_KINDS = {"synthetic_synthetic": "S_S", "synthetic_real": "S_R", "real_real": "R_R"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_REAL = "#555555"
_EXAMPLES = 10


def plain_values(groups: Sequence[Group]) -> dict[str, Any]:
    """All numbers of a comparison, nested: group → `real` (numbers of images), `expected_mahalanobis`, `ranking`, `generators` →
    `scores` (mean and std over runs), `flags`, `structure`, `visual`, `runs`."""
    return {
        group.name: {
            "real": dict(group.real),
            "expected_mahalanobis": group.expected_mahalanobis,
            "ranking": group.ranking(),
            "generators": {name: judged.values() for name, judged in group.generators.items()},
        }
        for group in groups
    }


def write_comparison(
    folder: str | Path,
    title: str,
    groups: Sequence[Group],
    protocol: GANProtocolConfig,
    real_examples: Mapping[int | None, np.ndarray],
) -> dict[str, Any]:
    """Writes the comparison into a folder.

    `index.html`; `metrics.json`, the scores; `comparison.json`, all numbers; `scores.csv`, a row a class and generator; `runs.csv`, a
    row an evaluator; `arrays.npz`, similarities and points of the plane; of each class `<class>_images.png`, `_ellipses.png`,
    `_similarity.png`.

    Args:
        folder: where; made if it does not exist.
        title: of the page.
        groups: what `compare_generators` returns.
        protocol: the settings, for the page.
        real_examples: class → real images, uint8, or float in [0, 1], [N, H, W, C], to look at beside the synthetic ones.

    Returns:
        What is in `metrics.json`.
    """
    folder = Path(folder)
    metrics = {
        "extractor": f"two-sample CNN, {protocol.evaluator.features} features, trained anew for each generator, class and run",
        "scores": scores_by_class(groups),
        "warnings": [warning for group in groups for warning in group.warnings()],
    }
    pictures = write_details(folder, groups, real_examples)
    write_report(folder, title=title, metrics=metrics, pictures=pictures, config=protocol.to_dict())
    return metrics


def scores_by_class(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Group → generator → means and deviations of scores, medians of similarities, flags and mean rank, as in `scores.csv`."""
    found: dict[str, dict[str, Any]] = {}
    for row in _score_rows(groups):
        found.setdefault(row.pop("class"), {})[row.pop("generator")] = row
    return found


def write_details(folder: Path, groups: Sequence[Group], real_examples: Mapping[int | None, np.ndarray]) -> dict[str, Path]:
    """All that `write_comparison` writes but the page and `metrics.json`; caption → PNG."""
    write_text(folder / "comparison.json", json.dumps(plain_values(groups), indent=1, allow_nan=False) + "\n")
    write_text(folder / "scores.csv", _table(_score_rows(groups)))
    write_text(folder / "runs.csv", _table(_run_rows(groups)))
    with replacing_file(folder / "arrays.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **_arrays(groups))
    pictures: dict[str, Path] = {}
    for group in groups:
        heading = group.name.replace("_", " ").capitalize()
        rows = [Row("Real", _bytes(real_examples[group.label][:_EXAMPLES]))]
        rows += [Row(f"SYNTHETIC, {name}", _bytes(each.examples[:_EXAMPLES])) for name, each in group.generators.items()]
        pictures[f"{heading}: real and synthetic images"] = write_sheet(folder / f"{group.name}_images.png", heading, rows)
        projections = {name: each.projection for name, each in group.generators.items()}
        pictures[f"{heading}: test images in the plane of the real ones, with ellipses of one standard deviation"] = (
            write_ellipses(folder / f"{group.name}_ellipses.png", projections)
        )
        pictures[f"{heading}: greatest similarity of each image with others"] = write_similarities(
            folder / f"{group.name}_similarity.png", group
        )
    return pictures


def write_ellipses(path: str | Path, projections: Mapping[str, Projection]) -> Path:
    """A panel a generator: real and synthetic test images, each with the ellipse of one standard deviation."""
    figure = Figure((3.2 * len(projections), 3.2), layout="constrained")
    for place, (name, projection) in enumerate(projections.items()):
        axes = figure.add_subplot(1, len(projections), place + 1)
        axes.set_title(name)
        for points, colour, label in (
            (projection.real, _REAL, "real"),
            (projection.synthetic, _COLOURS[place % len(_COLOURS)], "synthetic"),
        ):
            axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.35, color=colour, linewidths=0, label=label)
            ellipse = Ellipse.of(points)
            angle = float(np.degrees(np.arctan2(ellipse.axes[0, 1], ellipse.axes[0, 0])))
            width, height = (2 * float(length) for length in ellipse.lengths)
            axes.add_patch(Outline(tuple(ellipse.centre), width, height, angle=angle, fill=False, color=colour, linewidth=2))
        axes.legend(fontsize="x-small", markerscale=3)
        axes.locator_params(nbins=4)
        axes.ticklabel_format(useOffset=False)
        axes.tick_params(labelsize="x-small")
        axes.set_xlabel("first component")
    figure.axes[0].set_ylabel("second component")
    return _saved(figure, path)


def write_similarities(path: str | Path, group: Group) -> Path:
    """Violins of S_S, S_R and R_R: a row a measure, a panel a generator."""
    measures = list(next(iter(group.generators.values())).similarities)
    figure = Figure((2.4 * len(group.generators) + 0.6, 2.6 * len(measures)), layout="constrained")
    for row, measure in enumerate(measures):
        shared = None
        for column, (name, judged) in enumerate(group.generators.items()):
            place = row * len(group.generators) + column + 1
            axes = figure.add_subplot(len(measures), len(group.generators), place, sharey=shared)
            shared = shared or axes
            values = [getattr(judged.similarities[measure], kind) for kind in _KINDS]
            bodies: Any = axes.violinplot(values, showmedians=True)["bodies"]
            for body, colour in zip(bodies, ("#0072b2", "#e69f00", "#009e73")):
                body.set_facecolor(colour)
            axes.set_xticks(range(1, len(_KINDS) + 1), list(_KINDS.values()))
            axes.set_title(name, fontsize="small")
            if column == 0:
                axes.set_ylabel(f"maximum, {measure.replace('_', ' ')}")
    return _saved(figure, path)


def _saved(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    FigureCanvasAgg(figure)
    with replacing_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
    return path


def _bytes(images: np.ndarray) -> np.ndarray:
    return images if images.dtype == np.uint8 else np.rint(255 * images).astype(np.uint8)


def _score_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    rows = []
    for group in groups:
        ranking = group.ranking()
        for name, judged in group.generators.items():
            values = judged.values()
            row: dict[str, Any] = {"class": group.name, "generator": name, "runs": len(judged.runs)}
            for score, each in values["scores"].items():
                row |= {score: each["mean"], f"{score}_std": each["std"]}
            for measure, found in values["structure"].items():
                row |= {f"{measure}_{kind}_median": found[kind]["q50"] for kind in _KINDS}
            if judged.fid is not None:
                row["fid"] = judged.fid
            rows.append({**row, **judged.flags, "mean_rank": ranking[name]["mean"]})
    return rows


def _run_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {"class": group.name, "generator": name, "run": number, **run.scores}
        for group in groups
        for name, judged in group.generators.items()
        for number, run in enumerate(judged.runs)
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _arrays(groups: Sequence[Group]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for group in groups:
        for name, judged in group.generators.items():
            where = f"{group.name}/{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}"
            for measure, found in judged.similarities.items():
                arrays |= {f"{where}/{measure}/{kind}": getattr(found, kind) for kind in _KINDS}
            arrays |= {f"{where}/plane/real": judged.projection.real, f"{where}/plane/synthetic": judged.projection.synthetic}
    return arrays
