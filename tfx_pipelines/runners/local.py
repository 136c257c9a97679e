"""In this process, with metadata in SQLite."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_metadata import metadata_store
from tfx import v1 as tfx

from medsynth_tf.core.config import MethodConfig
from tfx_pipelines.factory import PipelineSettings, make_pipeline


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    blessed: bool
    reasons: tuple[str, ...]
    """A line per quality gate."""
    pushed: Path | None
    """The version's folder, or None if the model was refused."""
    evaluation: Path
    """Folder of the report."""


def run(config: MethodConfig, source: str, settings: PipelineSettings) -> Outcome:
    """Runs the pipeline and tells what came of it.

    Raises:
        DataError: the examples were refused. MedSynthError: of the component that failed.
    """
    settings.root.mkdir(parents=True, exist_ok=True)
    pipeline = make_pipeline(config, source, settings)
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(settings.metadata_file))
    pipeline.metadata_connection_config = connection
    tfx.orchestration.LocalDagRunner().run(pipeline)
    return outcome(settings)


def outcome(settings: PipelineSettings) -> Outcome:
    """The outcome of the last run, from the metadata store."""
    store = metadata_store.MetadataStore(
        tfx.orchestration.metadata.sqlite_metadata_connection_config(str(settings.metadata_file))
    )
    blessing = max(store.get_artifacts_by_type("ModelBlessing"), key=lambda artifact: artifact.id)
    evaluation = max(store.get_artifacts_by_type("ModelEvaluation"), key=lambda artifact: artifact.id)
    blessed = blessing.custom_properties["blessed"].int_value == 1
    pushes = [p for p in store.get_artifacts_by_type("PushedModel") if p.custom_properties["pushed"].int_value == 1]
    pushed = max(pushes, key=lambda artifact: artifact.id, default=None) if blessed else None
    return Outcome(
        blessed=blessed,
        reasons=tuple(filter(None, blessing.custom_properties["reasons"].string_value.split("; "))),
        pushed=Path(pushed.custom_properties["pushed_destination"].string_value) if pushed is not None else None,
        evaluation=Path(evaluation.uri),
    )
