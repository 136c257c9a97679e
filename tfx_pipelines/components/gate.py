"""Stops the pipeline where ExampleValidator only takes notes, and checks what a schema cannot say."""

from __future__ import annotations

import json
import os
from collections import defaultdict

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import v1 as tfx
from tfx.types import artifact_utils

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text
from medsynth_tf.data import records


class DataVerdict(tfx.dsl.Artifact):
    """`verdict.json`: the anomalies found in the examples; empty if there are none."""

    TYPE_NAME = "MedsynthDataVerdict"


def schema_anomalies(anomalies: tfx.dsl.Artifact) -> list[str]:
    """What ExampleValidator found, a line each: split, feature, what is wrong."""
    found = []
    for split in artifact_utils.decode_split_names(anomalies.split_names):
        path = os.path.join(artifact_utils.get_split_uri([anomalies], split), "SchemaDiff.pb")
        report = anomalies_pb2.Anomalies()
        report.ParseFromString(tf.io.gfile.GFile(path, "rb").read())
        for feature, anomaly in sorted(report.anomaly_info.items()):
            found.append(f"split '{split}', {feature}: {anomaly.description}")
        if report.HasField("dataset_anomaly_info"):
            found.append(f"split '{split}': {report.dataset_anomaly_info.description}")
    return found


def shared_patients(examples: tfx.dsl.Artifact) -> list[str]:
    """Patients with records in more than one split, a line each. Only the patient ids are kept in memory."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split in artifact_utils.decode_split_names(examples.split_names):
        folder = artifact_utils.get_split_uri([examples], split)
        files = tf.io.gfile.glob(os.path.join(folder, "*"))
        parsed = tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=tf.data.AUTOTUNE).map(
            records.parse_patient, num_parallel_calls=tf.data.AUTOTUNE
        )
        for patient in parsed.unique().as_numpy_iterator():
            splits_of[patient.decode()].add(split)
    return [
        f"patient '{patient}' is in splits {' and '.join(sorted(splits))}"
        for patient, splits in sorted(splits_of.items())
        if len(splits) > 1
    ]


@tfx.dsl.components.component
def DataGate(
    examples: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Examples],
    anomalies: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ExampleAnomalies],
    verdict: tfx.dsl.components.OutputArtifact[DataVerdict],
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
        more = f" (+{len(reasons) - 3} more in {path})" if len(reasons) > 3 else ""
        raise DataError("examples refused: " + "; ".join(reasons[:3]) + more)
