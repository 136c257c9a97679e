"""Judges a trained or exported model on held-out records, by the measures of its task, and writes the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import DataError
from medsynth_tf.core.names import look_up
from medsynth_tf.core.registry import load_any_config, method_info
from medsynth_tf.data.source import Source
from medsynth_tf.evaluation.agreement import VesselLabels
from medsynth_tf.evaluation.augmentation import judge_augmentation
from medsynth_tf.evaluation.categories import judge_categories
from medsynth_tf.evaluation.class_generation import judge_classes
from medsynth_tf.evaluation.ct_segmentation import judge_ct_segmentation
from medsynth_tf.evaluation.detection import judge_detection
from medsynth_tf.evaluation.gan_eval.judge import judge_gan
from medsynth_tf.evaluation.generation import GenerationImages, write_generation_report
from medsynth_tf.evaluation.graded_translation import judge_graded_translation
from medsynth_tf.evaluation.joint_generation import judge_pairs
from medsynth_tf.evaluation.landmarks import judge_landmarks
from medsynth_tf.evaluation.segmentation import judge_segmentation
from medsynth_tf.evaluation.severity import lesion_codes, severity_by_grade
from medsynth_tf.evaluation.sheets import Row, write_sheet
from medsynth_tf.evaluation.style_transfer import judge_style_transfer
from medsynth_tf.methods.saving import load
from medsynth_tf.metrics.extractors import default_extractor

SIGNATURE = "serving_default"


class Predict(Protocol):
    """Calls a signature with what it takes of a batch."""

    def __call__(self, batch: Mapping[str, tf.Tensor], signature: str = SIGNATURE) -> dict[str, tf.Tensor]:
        """The signature's outputs by name."""


def evaluate_model(folder: str | Path, source: Source, out: str | Path, split: str = "test") -> dict[str, Any]:
    """Judges a method that training saved.

    Args:
        folder: of the saved method.
        source: with the split in it.
        out: folder for the report.
        split: held-out records to judge on.

    Returns:
        The metrics, nested plain values; also in `out/metrics.json`.

    Raises:
        DataError: the folder is no saved method, or the split is empty.
    """
    model = load(folder)
    log = Path(folder).parent / "log.csv"
    with model.averaged_weights():
        return _evaluate(model.signatures(), model.config, source, Path(out), split, log if log.is_file() else None)


def evaluate_export(
    folder: str | Path,
    source: Source,
    out: str | Path,
    split: str = "test",
    log: Path | None = None,
    baseline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judges an export, through the signature that is served; arguments and result as for `evaluate_model`.

    Args:
        folder: of the version: it holds `saved_model.pb` and `config.yaml`.
        source, out, split: as for `evaluate_model`.
        log: `log.csv` of the run, for loss curves.
        baseline: metrics of the last blessed model, for gates relative to it.
    """
    folder = Path(folder)
    config = load_any_config(folder / "config.yaml")
    exported = tf.saved_model.load(str(folder))  # its signatures live as long as it does
    return _evaluate(exported.signatures, config, source, Path(out), split, log, baseline)


def _evaluate(
    signatures: Mapping[str, Any],
    config: MethodConfig,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    task = method_info(config.slug).task
    judge = look_up(_BY_TASK, task, "task with an evaluation")

    def predict(batch: Mapping[str, tf.Tensor], signature: str = SIGNATURE) -> dict[str, tf.Tensor]:
        function = signatures[signature]
        inputs = set(function.structured_input_signature[1]) if hasattr(function, "structured_input_signature") else None
        names = inputs or {spec.name for spec in function.input_signature}
        return function(**{name: batch[name] for name in names})

    return judge(predict, config, source, out, split, log, baseline)


def _label_to_image(
    predict: Predict,
    config: Any,
    source: Source,
    out: Path,
    split: str,
    log: Path | None,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Photographs made from held-out label maps, against the real ones and against what was trained on."""
    model_class = method_info(config.slug).model_class()
    held_out = model_class.dataset(source, config, split, config.seed)
    limit = config.evaluation.samples
    real, masks, synthetic = [], [], []
    for batch in held_out.take(-(-limit // config.training.batch_size)):
        real.append(batch["image"].numpy())
        masks.append(batch["label_map"].numpy())
        synthetic.append(predict(batch)["image"].numpy())
    if not real:
        raise DataError(f"split '{split}' holds no records to judge on")
    train = model_class.dataset(source, config, "train", config.seed, training=False)
    described = source.describe()
    labels = None
    if "vessel" in config.labels:
        diameter = described.get("field_of_view_diameter")
        labels = VesselLabels(vessel=config.labels.index("vessel"), diameter=diameter)
    maps = np.concatenate(masks)[:limit] if labels is not None else None  # agreement is measured on vessels
    images = GenerationImages(
        real=np.concatenate(real)[:limit],
        synthetic=np.concatenate(synthetic)[:limit],
        real_masks=maps,
        synthetic_masks=maps,
        train=np.concatenate([batch["image"].numpy() for batch in train]),
    )
    severity, sheets = _severity(predict, config, out)
    return write_generation_report(
        out,
        f"{config.slug}: {split} split of {described['kind']}",
        images,
        extractor=default_extractor(config.evaluation.extractor_weights),
        labels=labels,
        label_names={name: code for code, name in enumerate(config.labels)},
        gates=config.evaluation.gates,
        baseline=baseline,
        log=log,
        config=config.to_dict(),
        more_metrics=severity,
        more_pictures=sheets,
    )


def _severity(predict: Predict, config: Any, out: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Lesions of generated label maps by grade, and a sheet of them, where the model generates label maps."""
    if not config.label_generator.enabled or not lesion_codes(config.labels) or config.label_generator.grades < 2:
        return {}, {}

    def generate(grade: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return predict({"grade": tf.constant(grade), "seed": tf.constant(seed)}, "generate")["label_map"].numpy()

    found, maps = severity_by_grade(generate, config.label_generator.grades, lesion_codes(config.labels), config.seed)
    rows = [Row(f"Grade {grade}", of_grade[:8]) for grade, of_grade in enumerate(maps)]
    return {"severity": found}, {
        "Generated label maps": write_sheet(out / "generated_label_maps.png", "SYNTHETIC label maps", rows)
    }


_BY_TASK: Mapping[str, Callable[..., dict[str, Any]]] = {
    "CT segmentation": judge_ct_segmentation,
    "augmentation for classification": judge_augmentation,
    "categories of images": judge_categories,
    "content in another style": judge_style_transfer,
    "images of a class": judge_classes,
    "images of a class, compared": judge_gan,
    "label map to photograph": _label_to_image,
    "landmarks in frames": judge_landmarks,
    "masks and grade to photograph": judge_graded_translation,
    "panels of figures": judge_detection,
    "photograph with masks": judge_pairs,
    "segmentation of volumes": judge_segmentation,
}
