"""Compiled for Kubeflow Pipelines 2 and Vertex AI."""

from __future__ import annotations

from pathlib import Path

from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.files import replacing_file
from tfx_pipelines.factory import PipelineSettings, make_pipeline


def compile_pipeline(config: MethodConfig, source: str, settings: PipelineSettings, output: Path, image: str) -> Path:
    """Writes the pipeline's job specification as JSON, to be submitted to Kubeflow or Vertex.

    Args:
        config, source, settings: as for `make_pipeline`; folders are those that the containers see.
        output: the JSON file.
        image: container image in which the components run; it has medsynth_tf[tfx,serving] installed.
    """
    pipeline = make_pipeline(config, source, settings)
    with replacing_file(output) as temporary:
        runner = KubeflowV2DagRunner(
            config=KubeflowV2DagRunnerConfig(default_image=image),
            output_dir=str(temporary.parent),
            output_filename=temporary.name,
        )
        runner.run(pipeline)
    return output
