"""What the curated schema and the gate refuse: wrong examples, each kind in a split of its own, through the real components."""

import re

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from tfx.components import ExampleValidator, StatisticsGen
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.records import encode
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.tfrecord_files import RecordWriter
from tfx_pipelines.components.gate import DataGate
from tfx_pipelines.schema import SUMMARISED, make_schema

REQUIREMENTS = RecordRequirements(names=("mask", "label"), image_channels=(3,), mask_codes=2, labels=5)


def record(name, patient=None, *, channels=3, rank=3, codes=(0, 1, 2, 255), label=4, masked=True):
    size = (2, 8, 8)[4 - rank :]
    found = {
        "id": name,
        "patient_id": patient or name,
        "image": np.full((*size, channels), 7, np.uint8),
        "label": label,
    }
    if masked:
        found["mask"] = np.resize(np.array(codes, np.uint8), size)
    return found


WRONG = {
    "missing_mask": record("a", masked=False),
    "wrong_rank": record("b", rank=4),
    "wrong_channels": record("c", channels=4),
    "mask_outside_domain": record("d", codes=(0, 3)),
    "label_outside_domain": record("e", label=5),
    "negative_label": record("f", label=-1),
    "shared_patient": record("g", "good-1"),
}
EXPECTED = {
    "missing_mask": r"mask/(shape|dtype)",
    "wrong_rank": "(image|mask)/shape",
    "wrong_channels": "image/channels",
    "mask_outside_domain": "mask/values",
    "label_outside_domain": "label",
    "negative_label": "label",
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """The reasons for which the gate closed, its error, and the file of the reasons."""
    root = tmp_path_factory.mktemp("validation")
    splits = {"good": [record(f"good-{i}") for i in range(3)] + [record("all-outside", codes=(255,))]}
    splits |= {name: [record(f"{name}-{i}") for i in range(2)] + [wrong] for name, wrong in WRONG.items()}
    for split, records in splits.items():
        folder = root / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        with RecordWriter(folder / "data_tfrecord-00000-of-00001.gz", "GZIP") as writer:
            for one in records:
                writer.write(encode(one, "train"))
    tfdv.write_schema_text(make_schema(REQUIREMENTS), str(root / "schema.pbtxt"))
    examples = Importer(
        source_uri=str(root / "examples"),
        artifact_type=Examples,
        properties={"split_names": artifact_utils.encode_split_names(list(splits))},
    ).with_id("examples")
    statistics = StatisticsGen(
        examples=examples.outputs["result"], stats_options=tfdv.StatsOptions(feature_allowlist=list(SUMMARISED))
    )
    schema = ImportSchemaGen(schema_file=str(root / "schema.pbtxt"))
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    gate = DataGate(
        examples=examples.outputs["result"], anomalies=validator.outputs["anomalies"], refusals=str(root / "refused")
    )
    pipeline = Pipeline(
        pipeline_name="validation",
        pipeline_root=str(root / "artifacts"),
        components=[examples, statistics, schema, validator, gate],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite")),
        beam_pipeline_args=["--direct_running_mode=in_memory"],
    )
    with pytest.raises(DataError) as raised:
        LocalDagRunner().run(pipeline)
    (file,) = (root / "refused").iterdir()
    return file.read_text().splitlines(), str(raised.value), file


@pytest.mark.parametrize("kind", EXPECTED)
def test_each_kind_of_wrong_record_is_caught(verdict, kind):
    reasons = [reason for reason in verdict[0] if reason.startswith(f"split '{kind}'")]
    assert reasons
    assert all(re.match(rf"split '{kind}', {EXPECTED[kind]}: ", reason) for reason in reasons), reasons


def test_a_patient_in_two_splits_is_caught(verdict):
    patients = [reason for reason in verdict[0] if reason.startswith("patient")]
    assert patients == ["patient 'good-1' is in splits good and shared_patient"]


def test_right_records_are_not_refused(verdict):
    assert not [reason for reason in verdict[0] if reason.startswith(("split 'good'", "split 'shared_patient'"))]


def test_the_error_is_one_line_with_the_first_reasons(verdict):
    reasons, error, file = verdict
    assert error == f"examples refused: {'; '.join(reasons[:3])} (+{len(reasons) - 3} more); see {file}"
