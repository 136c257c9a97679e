"""An ExampleGen over any source of the library: DICOM, NIfTI and raster folders, shards, phantoms."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import QueryBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import Artifact, artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from medsynth_tf.core.files import write_text
from medsynth_tf.data.beam_records import EXAMPLES, REJECTED, RecordsFromSource
from medsynth_tf.data.ingest import REJECTED as REJECTED_FILE
from medsynth_tf.data.ingest import Rejection, write_rejected
from medsynth_tf.data.open import open_source
from medsynth_tf.data.records import SPLITS
from medsynth_tf.data.source import assign_splits
from medsynth_tf.data.tfrecord_source import MANIFEST


@dataclasses.dataclass(frozen=True)
class IngestQuery:
    """What the ExampleGen is asked for. The fingerprint is in it so that changed data are never taken from the cache.

    Attributes:
        source: specification for `open_source`.
        fingerprint: of the source's contents.
        split_fractions: shares of train, val, test for patients that the source puts in no split.
        seed: of the split.
        splits: those that have records; TFX would take an empty one for damaged data.
    """

    source: str
    fingerprint: str
    split_fractions: tuple[float, ...]
    seed: int
    splits: tuple[str, ...]

    @classmethod
    def of(cls, source: str, split_fractions: tuple[float, ...], seed: int) -> IngestQuery:
        """Looks at the source now: all of it is read once, for the fingerprint.

        Raises:
            DataError: it cannot be opened, or puts a patient into two splits. ConfigError: it is no specification.
        """
        opened = open_source(source)
        assigned = set(assign_splits(opened.keys(), split_fractions, seed).values())
        splits = tuple(split for split in SPLITS if split in assigned)
        return cls(source, opened.fingerprint(), split_fractions, seed, splits)

    def to_json(self) -> str:
        """As TFX stores it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> IngestQuery:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


class RecordExampleGenExecutor(BaseExampleGenExecutor):
    """Reads, checks and encodes the records of a source on any Beam runner, split by patient.

    Beside the splits the artifact's folder gets `rejected.csv` (id, file, reason: records that could not be read) and
    `manifest.json` (what was ingested).
    """

    def GetInputSourceToExamplePTransform(self) -> type[beam.PTransform]:
        """Of (source, fractions, seed): gives records with their split, and rejections."""
        return RecordsFromSource

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.pvalue.PCollection]:
        """Serialized examples by split; replaces TFX's own splitting, which goes by a hash and knows no patients."""
        query = _query(exec_properties)
        read = self.GetInputSourceToExamplePTransform()
        records = pipeline | "Records" >> read(query.source, query.split_fractions, query.seed)
        _ = (
            records[REJECTED]
            | "Together" >> beam.combiners.ToList()
            | "Reject" >> beam.Map(_write_rejections, os.path.join(self._folder, REJECTED_FILE))
        )
        by_split = records[EXAMPLES] | "Split" >> beam.Partition(_split_number, len(query.splits), query.splits)
        return {
            split: examples | f"Bytes of {split}" >> beam.Values().with_output_types(bytes)
            for split, examples in zip(query.splits, by_split)
        }

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the examples artifact; see the class."""
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        query = _query(exec_properties)
        self._folder = examples.uri
        super().Do(input_dict, output_dict, exec_properties)
        manifest = {
            "fingerprint": query.fingerprint,
            "source": open_source(query.source).describe(),
            "splits": {"fractions": list(query.split_fractions), "seed": query.seed},
        }
        write_text(os.path.join(examples.uri, MANIFEST), json.dumps(manifest, indent=1) + "\n")
        examples.set_string_custom_property("source", query.source)
        examples.set_string_custom_property("fingerprint", query.fingerprint)


class RecordExampleGen(QueryBasedExampleGen):
    """The component of a query."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(RecordExampleGenExecutor)

    def __init__(self, query: IngestQuery):
        named = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in query.splits]
        super().__init__(
            input_config=example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="all", pattern=query.to_json())]),
            output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=named)),
        )


def _query(exec_properties: dict[str, Any]) -> IngestQuery:
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], config)
    return IngestQuery.from_json(config.splits[0].pattern)


def _split_number(record: tuple[str, bytes], count: int, splits: Sequence[str]) -> int:
    return splits.index(record[0])


def _write_rejections(rejected: list[Rejection], path: str) -> None:
    write_rejected(Path(path), sorted(rejected, key=lambda rejection: rejection.id))
