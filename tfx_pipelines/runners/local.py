"""In this process, with metadata in SQLite."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import absl.logging
from ml_metadata import metadata_store
from ml_metadata.proto import Event
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import TrainingError
from tfx_pipelines.factory import PipelineSettings, make_pipeline


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        blessed: every quality gate holds, and the model server answers.
        reasons: a line per quality gate, and one if the model server failed.
        pushed: the version's folder, or None if the model was refused.
        evaluation: folder of the report.
    """

    blessed: bool
    reasons: tuple[str, ...]
    pushed: Path | None
    evaluation: Path


def run(config: MethodConfig, source: str, settings: PipelineSettings) -> Outcome:
    """Runs the pipeline, a line on stdout per component, and tells what came of it.

    Raises:
        DataError: the examples were refused. MedSynthError: of the component that failed.
    """
    settings.root.mkdir(parents=True, exist_ok=True)
    pipeline = make_pipeline(config, source, settings)
    pipeline.metadata_connection_config = metadata.sqlite_metadata_connection_config(str(settings.metadata_file))
    with _progress():
        LocalDagRunner().run(pipeline)
    return outcome(settings)


def outcome(settings: PipelineSettings) -> Outcome:
    """The outcome of the last run, from the metadata store.

    Raises:
        TrainingError: it did not get as far as judging a model.
    """
    store = metadata_store.MetadataStore(metadata.sqlite_metadata_connection_config(str(settings.metadata_file)))
    made = _artifacts_of_last_run(store)
    missing = [kind for kind in ("ModelBlessing", "InfraBlessing", "ModelEvaluation", "PushedModel") if kind not in made]
    if missing:
        raise TrainingError(f"the last run in {settings.root} did not finish: it made no {', no '.join(missing)}")
    judged, served, pushed = (made[kind].custom_properties for kind in ("ModelBlessing", "InfraBlessing", "PushedModel"))
    verdict = json.loads((Path(made["ModelBlessing"].uri) / "verdict.json").read_text())
    failure = served["reason"].string_value
    return Outcome(
        blessed=judged["blessed"].int_value == 1 and served["blessed"].int_value == 1,
        reasons=(*verdict["reasons"], *([f"FAILS: model server: {failure}"] if failure else [])),
        pushed=Path(pushed["pushed_destination"].string_value) if pushed["pushed"].int_value == 1 else None,
        evaluation=Path(made["ModelEvaluation"].uri),
    )


def _artifacts_of_last_run(store: metadata_store.MetadataStore) -> dict[str, Any]:
    """What the executions of the newest run put out, made or taken from the cache, by type."""
    last = max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
    executions = [execution.id for execution in store.get_executions_by_context(last.id)]
    outputs = [event.artifact_id for event in store.get_events_by_execution_ids(executions) if event.type == Event.OUTPUT]
    return {artifact.type: artifact for artifact in store.get_artifacts_by_id(outputs)}


class _ComponentLines(logging.Filter):
    """Turns TFX's two log entries per component into one printed line, and keeps the rest of what is no error to itself."""

    def __init__(self) -> None:
        super().__init__()
        self._began = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg == "Component %s is running.":
            self._began = time.monotonic()
        elif record.msg == "Component %s is finished.":
            print(f"{record.getMessage().split()[1]:24s} {time.monotonic() - self._began:6.1f} s", flush=True)
        return record.levelno >= logging.ERROR  # its warnings are of its own insides


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    log, lines, verbosity = absl.logging.get_absl_logger(), _ComponentLines(), absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.INFO)  # not by the logger's level, which absl resets when a SavedModel is written
    log.addFilter(lines)
    try:
        yield
    finally:
        log.removeFilter(lines)
        absl.logging.set_verbosity(verbosity)
