"""Compiled for Kubeflow Pipelines 2 and Vertex AI."""

from __future__ import annotations

from pathlib import Path

from tfx import v1 as tfx

from medsynth_tf.core.config import MethodConfig
from tfx_pipelines.factory import PipelineSettings, make_pipeline


def compile_pipeline(config: MethodConfig, source: str, settings: PipelineSettings, output: Path, image: str) -> Path:
    """Writes the pipeline's job specification as JSON, to be submitted to Kubeflow or Vertex.

    Args:
        config, source, settings: as for `make_pipeline`.
        output: the JSON file.
        image: container image in which the components run; it has medsynth_tf[tfx,serving] installed.
    """
    pipeline = make_pipeline(config, source, settings)
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image=image), output_filename=str(output)
    )
    runner.run(pipeline)
    return output
