"""One HTML page on a generator's images: pictures, measures, gates, settings. It needs no other file and no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text
from medsynth_tf.evaluation.gates import Verdict, flattened

# What each metric says, for a reader who is no engineer.
_MEANINGS = {
    "extractor": "the network or statistics that FID, KID and nearest neighbours in feature space are computed with",
    "images_real": "real images compared with, none of which the generator was trained on",
    "images_synthetic": "synthetic images examined",
    "fid": "distance between the two sets of images; 0 is best, comparable only for one extractor and one number of images",
    "kid": "the same without bias for few images; near 0 (also below) is best",
    "ms_ssim_real": "mean similarity of real images to one another; 1 would be all the same",
    "ms_ssim_synthetic": "mean similarity of synthetic images to one another; well above the real ones' means little variety",
    "label_agreement.dice_real": "how well a fixed vessel filter finds the masks' vessels in real images (1 is perfectly)",
    "label_agreement.dice_synthetic": "the same in synthetic images",
    "label_agreement.ratio": "the second over the first: at 1, vessels are as much where the mask has them as in real images",
    "label_agreement.precision_synthetic": "share of the vessels found in synthetic images that the mask has",
    "label_agreement.recall_synthetic": "share of the mask's vessels that are found in synthetic images",
    "label_agreement.dice_shuffled": "synthetic images against masks of others: what ignoring the mask would give",
    "classifier.accuracy": "share of held-out images that the classifier names rightly",
    "classifier.auc": "how well its scores order each class against the rest; 0.5 is chance, 1 is perfect",
    "classifier.f1": "mean over classes of the balance between missed and false findings",
    "classifier.kappa": "agreement beyond chance; for grades, errors by several grades count more",
    "compositions.accuracy": "share of compositions that the classifier names as their image's label says",
    "compositions.label_preservation": "that over its accuracy on the images: 1 means synthesis does not change what is seen",
    "compositions.same_answer": "share of compositions that are answered as their image is",
    "compositions.change_inside": "mean change of a pixel in the hole, of the range 0 to 1",
    "compositions.largest_change_outside": "must be 0: nothing changes where the image is kept",
    "compositions.diversity": "how much draws of one image differ where they are synthetic",
}
_PAIRING = {
    "paired": "how well masks fit what a segmenter of real pairs finds in their own images (1 is perfectly)",
    "shuffled": "the same with images of others, which is what unrelated masks would give",
    "margin": "the first less the second",
    "real": "the segmenter itself on held-out real pairs: the most that can be asked for",
}
_MEANINGS |= {f"pairing.{part}{key}": text for part in ("", "optic_disc.", "atrophy.") for key, text in _PAIRING.items()}
_MEANINGS |= {
    "masks.empty": "share of samples of which a mask has no pixel",
    "masks.one_component": "share of discs in one piece",
    "masks.inside_view": "share of mask pixels within their photograph's field of view",
    "masks.area_optic_disc": "mean area of generated discs over that of real ones",
    "masks.area_atrophy": "mean area of generated atrophy over that of real atrophy",
    "masks.touching": "share of samples where disc and atrophy touch",
    "downstream.real": "a segmenter trained on real pairs, on held-out ones",
    "downstream.with_synthetic": "the same trained on real and synthetic pairs",
    "downstream.gain": "the second less the first",
}
_MEANINGS |= {
    "segmentation.dice": "mean over volumes of the overlap of found and true structure; 1 is perfect",
    "segmentation.dice_sd": "its standard deviation over volumes",
    "segmentation.dice_least": "of the worst volume",
    "segmentation.sensitivity": "share of the structure that is found",
    "segmentation.specificity": "share of the rest that is left alone",
    "segmentation.volumes": "held-out volumes judged",
    "training.annotated_pixels": "pixels with a label in all that was trained on",
}
for _part, _text in (
    ("segmentation", "Dice by patient of what is found with the truth (1 is perfect)"),
    ("agreement", "Dice by patient of what is found in a smooth and in a sharp reconstruction"),
    ("consistency", "Dice by slice of what is found after smoothing and after sharpening, no label needed"),
):
    _MEANINGS |= {
        f"{_part}.mean": f"{_text}; without cases where both are empty",
        f"{_part}.both_empty": "cases where both masks are empty, which say nothing",
        f"{_part}.mean_strict": "the mean over all cases, those empty twice counting 0",
    }
_MEANINGS |= {
    "agreement.bias": "pixels that are found more in the smooth reconstruction than in the sharp one, on average",
    "agreement.lower": "limits of agreement (Bland and Altman): 95 % of cases differ by more than this",
    "agreement.upper": "and by less than this",
}
_MEANINGS |= {
    "transfer.fidelity": "distance of results to their styles, over that of contents to them: 0 is a perfect transfer, 1 none",
    "transfer.correlation": "of blurred results with blurred contents: 1 means that all shapes are where they were",
    "transfer.structure_contrast": "how much the labelled structure stands out, over how much it does in the content",
    "prior.spread_coherent": "how far styles of the prior differ, drawn once a channel; real images differ by 1",
    "prior.spread_iid": "the same, drawn for each pixel, which averages out",
    "prior.ratio": "the first over the second",
    "discriminability.recall": "share of synthetic images that a classifier trained for it tells from real ones; 0.5 is best",
    "discriminability.specificity": "share of real images that it takes for real; read it with the recall",
    "discriminability.balanced_accuracy": "their mean: 0.5 where nothing tells the two apart, 1 where every image does",
    "distance.mahalanobis": "distance of synthetic images from the real ones in the classifier's features",
    "distance.mahalanobis_floor": "the same of real images from real ones: no generator can be expected below it",
    "distance.frechet": "distance between both sets in these features; 0 is best",
    "distance.frechet_floor": "the same between two parts of the real images",
    "structure.synthetic_real": "median of the greatest similarity of synthetic images with training images; near 1 they are copies",
    "structure.synthetic_synthetic": "the same among synthetic images; well above the real ones' they are all alike",
    "structure.real_real": "the same among real images",
    "flags.memorisation": "1: synthetic images are as near to training images as copies would be",
    "flags.collapse": "1: synthetic images are more alike than real ones",
    "flags.evaluator_at_chance": "1: the classifier learnt nothing, so that distances are near 0 and say nothing",
}
_MEMORISATION = {
    "space": "how distance is measured",
    "synthetic": "synthetic images examined",
    "held_out": "real held-out images that set the yardstick",
    "nearer_than_percentile_1": "synthetic images nearer to a training image than 99 % of held-out images are",
    "nearer_than_percentile_5": "the same with 95 %",
    "share_nearer_than_percentile_5": "as a share; about 0.05 is expected of new images",
    "copies": "synthetic images that equal a training image",
    "median_distance": "typical distance of a synthetic image to its nearest training image",
    "median_distance_held_out": "typical distance of a held-out image",
    "smallest_distance": "smallest distance of all",
}
_MEANINGS |= {f"memorisation.{space}.{key}": text for space in ("pixels", "features") for key, text in _MEMORISATION.items()}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
.mark { background: #b00020; color: #fff; padding: .5rem 1rem; font-weight: 600; border-radius: 4px; }
.note { background: #fff4d6; padding: .5rem 1rem; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top;
border-bottom: 1px solid #ddd; } td.value { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.value.text { white-space: normal; } .passes { color: #00683a; font-weight: 600; }
.fails { color: #b00020; font-weight: 600; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption { font-weight: 600; margin-bottom: .3rem; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; } small { color: #555; }
"""


def write_report(
    folder: str | Path,
    *,
    title: str,
    metrics: Mapping[str, Any],
    pictures: Mapping[str, str | Path] | None = None,
    verdicts: Sequence[Verdict] = (),
    config: Mapping[str, Any] | None = None,
    synthetic: bool = True,
) -> Path:
    """Writes `index.html`, with the pictures inside, and `metrics.json` beside it.

    Args:
        folder: where; made if it does not exist.
        title: of the page.
        metrics: nested plain values, as `evaluate_generation` returns; must name the `extractor`.
        pictures: caption → PNG file, in the order of the page.
        verdicts: of the quality gates.
        config: nested plain settings of the run.
        synthetic: whether the pictures are made by a generator, which the page says on top.

    Returns:
        The page's path.

    Raises:
        DataError: `metrics` name no extractor, or a picture cannot be read.
    """
    if not metrics.get("extractor"):
        raise DataError(f"report '{title}': metrics must name the feature extractor they were computed with")
    folder = Path(folder)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    mark = "SYNTHETIC IMAGES: made by a computer program. They show no patient. Not for diagnosis."
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="mark">{mark if synthetic else "Found by a computer program. Not for diagnosis."}</p>',
    ]
    if verdicts:
        sections.append(_verdicts(verdicts))
    if metrics.get("warnings"):
        notes = "".join(f"<li>{escape(str(warning))}</li>" for warning in metrics["warnings"])
        sections.append(f'<div class="note"><b>To be read with care</b><ul>{notes}</ul></div>')
    sections += [_figure(caption, Path(path)) for caption, path in (pictures or {}).items()]
    sections.append(_table(metrics))
    if config:
        settings = "\n".join(f"{name}: {value}" for name, value in flattened(config).items())
        sections.append(f"<h2>Settings</h2><pre>{escape(settings)}</pre>")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(sections)
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _figure(caption: str, path: Path) -> str:
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise DataError(f"report: cannot read picture {path}: {error.strerror}") from error
    text = escape(caption)
    return f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="data:image/png;base64,{data}"></figure>'


def _table(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name, value in flattened({key: value for key, value in metrics.items() if key not in ("warnings", "cases")}).items():
        kind = "value text" if isinstance(value, str) else "value"
        meaning = escape(_MEANINGS.get(name, ""))
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="{kind}">{escape(_shown(value))}</td><td><small>{meaning}</small></td></tr>'
        )
    return f"<h2>Measures</h2><p>Features: {escape(str(metrics['extractor']))}</p><table>{''.join(rows)}</table>"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = "".join(
        f"<tr><td>{escape(verdict.gate.metric)}</td><td>{escape(verdict.gate.rule)}</td><td>{_shown(verdict.value)}</td>"
        f'<td class="{"passes" if verdict.passed else "fails"}">{"passes" if verdict.passed else "fails"}</td></tr>'
        for verdict in verdicts
    )
    return f"<h2>Quality gates</h2><table><tr><th>Measure</th><th>Must be</th><th>Is</th><th></th></tr>{rows}</table>"


def _shown(value: Any) -> str:
    if value is None:
        return "not computed"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
