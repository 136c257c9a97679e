"""Stops the pipeline where ExampleValidator only takes notes, and checks what a schema cannot say."""

import json
import os
from collections import defaultdict

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact, artifact_utils
from tfx.types.experimental.simple_artifacts import File
from tfx.types.standard_artifacts import ExampleAnomalies, Examples

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text

SHOWN = 3  # reasons in the error's line


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
    examples: InputArtifact[Examples],
    anomalies: InputArtifact[ExampleAnomalies],
    verdict: OutputArtifact[File],  # Kubeflow knows no artifact types but TFX's own
    refusals: Parameter[str],
) -> None:
    """Fails, with the reasons, if the examples break the schema or a patient is in two splits.

    Args:
        examples: from the ExampleGen.
        anomalies: from ExampleValidator.
        verdict: gets `verdict.json` if the examples are accepted.
        refusals: folder for a text file of all reasons if they are not; TFX removes the artifacts of a component that fails.

    Raises:
        DataError: names the first reasons and the file with all of them.
    """
    reasons = schema_anomalies(anomalies) + shared_patients(examples)
    if reasons:
        path = os.path.join(refusals, f"examples-{examples.id}.txt")
        write_text(path, "\n".join(reasons) + "\n")
        more = f" (+{len(reasons) - SHOWN} more)" if len(reasons) > SHOWN else ""
        raise DataError(f"examples refused: {'; '.join(reasons[:SHOWN])}{more}; see {path}")
    accepted = {"accepted": True, "splits": artifact_utils.decode_split_names(examples.split_names)}
    write_text(os.path.join(verdict.uri, "verdict.json"), json.dumps(accepted, indent=2))
