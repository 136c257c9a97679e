"""One pipeline for every method: ingest, statistics, schema, validation, gate, training, judgement, smoke test, push."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import tensorflow_data_validation as tfdv
from tfx import v1 as tfx
from tfx.components.example_gen.component import QueryBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.open import open_source
from tfx_pipelines.components.evaluator import SynthesisEvaluator
from tfx_pipelines.components.gate import DataGate
from tfx_pipelines.components.ingest import SPLITS, RecordExampleGenExecutor
from tfx_pipelines.components.smoke import ServingSmokeTest
from tfx_pipelines.schema import SUMMARISED, make_schema


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """Where a pipeline works.

    Attributes:
        root: folder of artifacts, metadata and runs.
        push_to: base path of the served model; each pushed version is a numbered folder in it.
        beam_args: pipeline options handed to Beam, for example `--runner=FlinkRunner`.
        cache: take results of earlier executions with equal inputs.
    """

    root: Path
    push_to: Path
    beam_args: tuple[str, ...] = ("--direct_running_mode=in_memory",)
    cache: bool = True

    @property
    def metadata_file(self) -> Path:
        """SQLite file of ML-Metadata."""
        return self.root / "metadata.sqlite"


def make_pipeline(config: MethodConfig, source: str, settings: PipelineSettings) -> tfx.dsl.Pipeline:
    """The pipeline of a method on a source.

    Args:
        config: the method's configuration; its slug decides the method.
        source: specification, like `folder:PATH`.
        settings: where it works.

    Raises:
        DataError: the source cannot be opened.
    """
    settings.root.mkdir(parents=True, exist_ok=True)
    slug = config.slug
    fingerprint = open_source(source).fingerprint()
    query = {
        "source": source,
        "fingerprint": fingerprint,
        "split_fractions": list(config.data.split_fractions),
        "seed": config.seed,
    }
    ingest = _example_gen(query)
    statistics = tfx.components.StatisticsGen(
        examples=ingest.outputs["examples"], stats_options=tfdv.StatsOptions(feature_allowlist=list(SUMMARISED))
    )
    schema_file = settings.root / "schema" / slug / "schema.pbtxt"
    requirements = method_info(slug).model_class().record_requirements(config)
    schema_file.parent.mkdir(parents=True, exist_ok=True)
    tfdv.write_schema_text(make_schema(requirements), str(schema_file))
    schema = tfx.components.ImportSchemaGen(schema_file=str(schema_file))
    validator = tfx.components.ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    gate = DataGate(examples=ingest.outputs["examples"], anomalies=validator.outputs["anomalies"])
    plain = {"method": slug, **config.to_dict()}
    run_id = hashlib.sha256(json.dumps([plain, fingerprint], sort_keys=True).encode()).hexdigest()[:16]
    trainer = tfx.components.Trainer(
        run_fn="tfx_pipelines.trainer_module.run_fn",
        examples=ingest.outputs["examples"],
        schema=schema.outputs["schema"],
        train_args=tfx.proto.TrainArgs(splits=["train"]),
        eval_args=tfx.proto.EvalArgs(splits=["val"]),
        custom_config={"config": plain, "run_folder": str(settings.root / "runs" / run_id), "fingerprint": fingerprint},
    )
    trainer.add_upstream_node(gate)
    baseline = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("LatestBlessedModel")
    evaluator = SynthesisEvaluator(
        examples=ingest.outputs["examples"], model=trainer.outputs["model"], baseline=baseline.outputs["model"]
    )
    smoke = ServingSmokeTest(model=trainer.outputs["model"])
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=smoke.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(settings.push_to))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name=f"medsynth-{slug.replace('_', '-')}",
        pipeline_root=str(settings.root / "artifacts"),
        components=[ingest, statistics, schema, validator, gate, trainer, baseline, evaluator, smoke, pusher],
        enable_cache=settings.cache,
        beam_pipeline_args=list(settings.beam_args),
    )


def _example_gen(query: dict[str, Any]) -> tfx.dsl.components.BaseComponent:
    """A query-based ExampleGen whose query is the source, how to split it, and its fingerprint, so that changed data are never
    taken from the cache."""
    split = example_gen_pb2.Input.Split(name="all", pattern=json.dumps(query, sort_keys=True))
    splits = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in SPLITS]
    return QueryBasedExampleGen(
        input_config=example_gen_pb2.Input(splits=[split]),
        output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
        custom_executor_spec=executor_spec.BeamExecutorSpec(RecordExampleGenExecutor),
    ).with_id("RecordExampleGen")
