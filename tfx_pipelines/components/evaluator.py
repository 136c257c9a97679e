"""Judges a trained model by its method's own metrics and blesses or refuses it, with reasons."""

import json
import os
from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation, ModelRun
from tfx.utils import path_utils

from medsynth_tf.core.files import write_text
from medsynth_tf.core.registry import load_any_config
from medsynth_tf.data.open import open_source
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.run import evaluate_export


@component
def SynthesisEvaluator(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    model_run: InputArtifact[ModelRun],
    blessing: OutputArtifact[ModelBlessing],
    evaluation: OutputArtifact[ModelEvaluation],
    baseline: InputArtifact[Model] = None,
) -> None:
    """Blesses the model if every gate of its configuration (`evaluation.gates`) holds.

    Args:
        examples: the held-out split is judged on, the training split is searched for memorised images.
        model: from the Trainer.
        model_run: from the Trainer: the losses of its run.
        blessing: blessed or not; `verdict.json` in it gives each gate with its value and limit.
        evaluation: `metrics.json` and the page `index.html`, for people.
        baseline: the last blessed model, if there is one: judged on the same data, for gates relative to it.
    """
    folder = path_utils.serving_model_path(model.uri)
    config = load_any_config(os.path.join(folder, "config.yaml"))
    source = open_source(f"tfrecord:{examples.uri}")
    before = None
    if baseline is not None:
        before = evaluate_export(path_utils.serving_model_path(baseline.uri), source, os.path.join(evaluation.uri, "baseline"))
    metrics = evaluate_export(folder, source, evaluation.uri, log=Path(model_run.uri) / "log.csv", baseline=before)
    verdicts = check_gates(metrics, config.evaluation.gates, before)
    passed, reasons = all(verdict.passed for verdict in verdicts), [str(verdict) for verdict in verdicts]
    write_text(os.path.join(blessing.uri, "verdict.json"), json.dumps({"passed": passed, "reasons": reasons}, indent=2))
    write_text(os.path.join(blessing.uri, "BLESSED" if passed else "NOT_BLESSED"), "")
    blessing.set_int_custom_property("blessed", int(passed))
    blessing.set_string_custom_property("reasons", "; ".join(reasons))
    # LatestBlessedModelStrategy finds the model of a blessing by these
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)
    if baseline is not None:
        blessing.set_string_custom_property("baseline_model", baseline.uri)
        blessing.set_int_custom_property("baseline_model_id", baseline.id)
