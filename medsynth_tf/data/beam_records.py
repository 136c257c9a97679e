"""Reading a source on any Apache Beam runner; what the TFX component is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import apache_beam as beam

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.ingest import Rejection, first_file
from medsynth_tf.data.open import open_source
from medsynth_tf.data.records import encode
from medsynth_tf.data.source import RecordKey, Source, assign_splits

EXAMPLES = "examples"
REJECTED = "rejected"


class ReadRecords(beam.DoFn):
    """(split, key) → (split, serialized tf.Example); what cannot be read goes to the output `rejected` as a Rejection."""

    def __init__(self, source: str):
        self._spec = source
        self._source: Source | None = None

    def setup(self) -> None:
        """Opens the source, once in each worker; sources are not sent between machines."""
        self._source = open_source(self._spec)

    def process(self, element: tuple[str, RecordKey]) -> Iterator[object]:
        """One record."""
        split, key = element
        assert self._source is not None
        try:
            yield split, encode(self._source.read(key), split)
        except DataError as error:
            yield beam.pvalue.TaggedOutput(REJECTED, Rejection(key.id, first_file(self._source, key), str(error)))


class RecordsFromSource(beam.PTransform):
    """Pipeline → `{"examples": (split, serialized tf.Example), "rejected": Rejection}`.

    Keys and splits are found where the pipeline is built; workers need to reach the same paths.

    Args:
        source: a specification for `open_source`.
        fractions: shares of train, val, test for patients that the source puts in no split.
        seed: of the split.
    """

    def __init__(self, source: str, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0):
        super().__init__()
        self._spec, self._fractions, self._seed = source, tuple(fractions), seed

    def expand(self, pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        """See the class.

        Raises:
            DataError: the source cannot be listed, or a patient is in two splits.
        """
        keys = open_source(self._spec).keys()
        splits = assign_splits(keys, self._fractions, self._seed)
        outputs = (
            pipeline
            | "Keys" >> beam.Create([(splits[key.patient_id], key) for key in keys])
            | "Spread" >> beam.Reshuffle()  # else one worker gets them all
            | "Read" >> beam.ParDo(ReadRecords(self._spec)).with_outputs(REJECTED, main=EXAMPLES)
        )
        return {EXAMPLES: outputs[EXAMPLES], REJECTED: outputs[REJECTED]}
