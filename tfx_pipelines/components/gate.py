"""Stops the pipeline where ExampleValidator only takes notes, and checks what a schema cannot say."""

import json
import os
from collections import defaultdict

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact, artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, Examples

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text

SHOWN = 3  # reasons in the error's line; all of them stand in verdict.json


class DataVerdict(Artifact):
    """`verdict.json`: the anomalies found in the examples; empty if there are none."""

    TYPE_NAME = "MedsynthDataVerdict"


def schema_anomalies(anomalies: Artifact) -> list[str]:
    """What ExampleValidator found, a line each: split, feature, what is wrong."""
    found = []
    for split in artifact_utils.decode_split_names(anomalies.split_names):
        path = os.path.join(artifact_utils.get_split_uri([anomalies], split), "SchemaDiff.pb")
        report = anomalies_pb2.Anomalies()
        with tf.io.gfile.GFile(path, "rb") as file:
            report.ParseFromString(file.read())
        for feature, anomaly in sorted(report.anomaly_info.items()):
            found.append(f"split '{split}', {feature}: {anomaly.description}")
        if report.HasField("dataset_anomaly_info"):
            found.append(f"split '{split}': {report.dataset_anomaly_info.description}")
        if report.data_missing:
            found.append(f"split '{split}': no records")
    return found


def shared_patients(examples: Artifact) -> list[str]:
    """Patients with records in more than one split, a line each. Only the patient ids are kept in memory."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split in artifact_utils.decode_split_names(examples.split_names):
        files = tf.io.gfile.glob(os.path.join(artifact_utils.get_split_uri([examples], split), "*"))
        patients = tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=tf.data.AUTOTUNE).map(
            _patient, num_parallel_calls=tf.data.AUTOTUNE
        )
        for patient in patients.unique().as_numpy_iterator():
            splits_of[patient.decode()].add(split)
    return [
        f"patient '{patient}' is in splits {' and '.join(sorted(splits))}"
        for patient, splits in sorted(splits_of.items())
        if patient and len(splits) > 1  # a record without a patient breaks the schema
    ]


def _patient(serialized: tf.Tensor) -> tf.Tensor:
    spec = {"patient_id": tf.io.FixedLenFeature([], tf.string, "")}
    return tf.io.parse_single_example(serialized, spec)["patient_id"]


@component
def DataGate(
    examples: InputArtifact[Examples], anomalies: InputArtifact[ExampleAnomalies], verdict: OutputArtifact[DataVerdict]
) -> None:
    """Fails, with the reasons, if the examples break the schema or a patient is in two splits.

    Args:
        examples: from the ExampleGen.
        anomalies: from ExampleValidator.
        verdict: gets `verdict.json`, also when the gate closes.

    Raises:
        DataError: names the first reasons and says where the rest is.
    """
    reasons = schema_anomalies(anomalies) + shared_patients(examples)
    path = os.path.join(verdict.uri, "verdict.json")
    write_text(path, json.dumps({"accepted": not reasons, "reasons": reasons}, indent=2))
    if reasons:
        more = f" (+{len(reasons) - SHOWN} more in {path})" if len(reasons) > SHOWN else ""
        raise DataError("examples refused: " + "; ".join(reasons[:SHOWN]) + more)
