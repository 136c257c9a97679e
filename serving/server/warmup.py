"""Replay of recorded requests when a version loads, so that the first real one does not pay for lazy initialisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.examples import classify, multi_inference, regress
from serving.server.prediction import predict

if TYPE_CHECKING:
    from serving.server.servable import Servable

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000  # as TensorFlow Serving
_REPLAYS = {
    "predict_log": predict,
    "classify_log": classify,
    "regress_log": regress,
    "multi_inference_log": multi_inference,
}


def replay(servable: Servable, path: Path, iterations: int = 1) -> int:
    """Runs the recorded requests of the version in `path`, each `iterations` times; returns how many records there were.

    Raises:
        StatusError, tf.errors.OpError: a request fails: the version is not fit to serve. ValueError: an unknown kind of record.
    """
    file = path / WARMUP_FILE
    if not file.is_file():
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(str(file)).take(MAX_RECORDS).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        if kind not in _REPLAYS:
            raise ValueError(f"{file}: cannot replay a {kind}; these are: {', '.join(_REPLAYS)}")
        for _ in range(iterations):
            _REPLAYS[kind](servable, getattr(log, kind).request)
        count += 1
    return count
