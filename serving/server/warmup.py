"""Replay of recorded requests when a version loads, so that the first real one does not pay for lazy initialisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.prediction import predict

if TYPE_CHECKING:
    from serving.server.servable import Servable

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000  # as TensorFlow Serving


def replay(servable: Servable, path: Path) -> int:
    """Runs the recorded Predict requests of the version in `path`; returns how many there were.

    Raises:
        StatusError, tf.errors.OpError: a request fails: the version is not fit to serve. ValueError: an unknown kind of record.
    """
    file = path / WARMUP_FILE
    if not file.is_file():
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(str(file)).take(MAX_RECORDS).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            raise ValueError(f"{file}: cannot replay a {log.WhichOneof('log_type')}; Predict requests are replayed")
        predict(servable, log.predict_log.request)
        count += 1
    return count
