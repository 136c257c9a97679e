"""One pipeline for every method: ingest, statistics, schema, validation, gate, training, judgement, smoke test, push."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import tensorflow_data_validation as tfdv

# `tfx.v1` gives the same names, but imports every client of Google Cloud first, which takes ten seconds.
from tfx.components import ExampleValidator, StatisticsGen, Trainer
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, trainer_pb2
from tfx.types import Channel
from tfx.types.standard_artifacts import Model, ModelBlessing

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text
from medsynth_tf.core.registry import method_info
from medsynth_tf.evaluation.gates import Gate
from tfx_pipelines.components.evaluator import SynthesisEvaluator
from tfx_pipelines.components.gate import DataGate
from tfx_pipelines.components.ingest import IngestQuery, RecordExampleGen
from tfx_pipelines.components.pusher import AtomicPusher
from tfx_pipelines.components.smoke import ServingSmokeTest
from tfx_pipelines.schema import SUMMARISED, make_schema


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """Where a pipeline works.

    Attributes:
        root: folder of artifacts, metadata and runs; made absolute, as is `push_to`.
        push_to: base path of the served model; each pushed version is a numbered folder in it.
        beam_args: pipeline options handed to Beam, for example `--runner=FlinkRunner`.
        cache: take results of earlier executions with equal inputs.
    """

    root: Path
    push_to: Path
    beam_args: tuple[str, ...] = ("--direct_running_mode=in_memory",)
    cache: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).absolute())
        object.__setattr__(self, "push_to", Path(self.push_to).absolute())

    @property
    def metadata_file(self) -> Path:
        """SQLite file of ML-Metadata."""
        return self.root / "metadata.sqlite"


def make_pipeline(config: MethodConfig, source: str, settings: PipelineSettings) -> Pipeline:
    """The pipeline of a method on a source.

    Args:
        config: the method's configuration; its slug decides the method.
        source: specification, like `folder:PATH`.
        settings: where it works.

    Raises:
        DataError: the source cannot be opened, or has nothing to train or to judge on. ConfigError: a quality gate cannot be read.
    """
    for gate in config.evaluation.gates:
        Gate.parse(gate)
    slug = config.slug
    query = IngestQuery.of(source, config.data.split_fractions, config.seed)
    for split in ("train", "test"):
        if split not in query.splits:
            raise DataError(f"{source}: its '{split}' split is empty; data.split_fractions = {query.split_fractions}")
    ingest = RecordExampleGen(query)
    statistics = StatisticsGen(
        examples=ingest.outputs["examples"], stats_options=tfdv.StatsOptions(feature_allowlist=list(SUMMARISED))
    )
    schema = ImportSchemaGen(schema_file=str(_write_schema(config, settings.root / "schema")))
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    gate = DataGate(
        examples=ingest.outputs["examples"],
        anomalies=validator.outputs["anomalies"],
        refusals=str(settings.root / "refused"),
    )
    plain = {"method": slug, **config.to_dict()}
    run_id = hashlib.sha256(json.dumps([plain, query.fingerprint], sort_keys=True).encode()).hexdigest()[:16]
    trainer = Trainer(
        run_fn="tfx_pipelines.trainer_module.run_fn",
        examples=ingest.outputs["examples"],
        schema=schema.outputs["schema"],
        # all splits to both: the method chooses what it looks at
        train_args=trainer_pb2.TrainArgs(splits=query.splits),
        eval_args=trainer_pb2.EvalArgs(splits=query.splits),
        custom_config={
            "config": plain,
            "run_folder": str(settings.root / "runs" / run_id),
            "fingerprint": query.fingerprint,
        },
    )
    trainer.add_upstream_node(gate)
    baseline = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("LatestBlessedModel")
    evaluator = SynthesisEvaluator(
        examples=ingest.outputs["examples"],
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        baseline=baseline.outputs["model"],
    )
    smoke = ServingSmokeTest(model=trainer.outputs["model"])
    pusher = AtomicPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=smoke.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(settings.push_to))
        ),
    ).with_id("Pusher")
    return Pipeline(
        pipeline_name=f"medsynth-{slug.replace('_', '-')}",
        pipeline_root=str(settings.root / "artifacts"),
        components=[ingest, statistics, schema, validator, gate, trainer, baseline, evaluator, smoke, pusher],
        enable_cache=settings.cache,
        beam_pipeline_args=list(settings.beam_args),
    )


def _write_schema(config: MethodConfig, folder: Path) -> Path:
    """The method's curated schema, in a file named by its contents: TFX's cache goes by the name."""
    text = str(make_schema(method_info(config.slug).model_class().record_requirements(config)))
    path = folder / f"{config.slug}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pbtxt"
    write_text(path, text)
    return path
