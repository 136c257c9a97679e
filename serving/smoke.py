"""One try of an export on the model server, before anybody relies on it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from medsynth_tf.core.card import ModelCard
from medsynth_tf.core.errors import ServingError
from medsynth_tf.training.export import DEFAULT_SIGNATURE, WARMUP_FILE
from serving.client import Client
from serving.embedded import running_server
from serving.tensors import from_proto

START_SECONDS = 180.0
_ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}  # the caller may hold the whole of an accelerator's memory


def smoke_test(folder: str | Path) -> None:
    """Serves an export in a process of its own, sends its warm-up requests and compares with the SavedModel in this process.

    Args:
        folder: of the export: `saved_model.pb` and its warm-up requests. It need not have a number for a name.

    Raises:
        ServingError: there are no warm-up requests, the server cannot load the export or fails a request, or an answer is not
            what the SavedModel computes (8-bit images: within 1; floats: within 1e-4 of their size).
    """
    folder = Path(folder).resolve()
    requests = _requests(folder)
    card = ModelCard.read(folder)
    name = card.name if card else requests[0].model_spec.name
    with _serving(folder, name) as address, Client(address) as client, tf.device("CPU:0"):
        try:
            signatures = tf.saved_model.load(str(folder)).signatures
        except (OSError, tf.errors.OpError) as error:
            raise ServingError(f"{folder}: cannot be loaded: {' '.join(str(error).split())}") from error
        for request in requests:
            signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
            inputs = {key: from_proto(proto) for key, proto in request.inputs.items()}
            answer = client.predict(name, inputs, signature)
            expected = signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
            _compare(answer, {key: value.numpy() for key, value in expected.items()}, f"signature '{signature}' of {folder}")


def _requests(folder: Path) -> list[predict_pb2.PredictRequest]:
    file = folder / WARMUP_FILE
    try:
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator()) if file.is_file() else []
    except tf.errors.OpError as error:
        raise ServingError(f"{file}: {error.message.splitlines()[0]}") from error
    if not records:
        raise ServingError(f"{folder}: has no warm-up requests ({WARMUP_FILE}) to try it with")
    return [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]


def _compare(answer: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], origin: str) -> None:
    if answer.keys() != expected.keys():
        raise ServingError(f"{origin}: the server returned {sorted(answer)}, the SavedModel {sorted(expected)}")
    for key, value in expected.items():
        served = answer[key]
        if served.dtype != value.dtype or served.shape != value.shape:
            found = f"{served.dtype} {list(served.shape)}"
            raise ServingError(
                f"{origin}: '{key}' is served as {found}, the SavedModel gives {value.dtype} {list(value.shape)}"
            )
        if value.dtype == np.uint8:
            same = np.abs(served.astype(np.int16) - value).max(initial=0) <= 1
        elif value.dtype.kind == "f":
            same = np.allclose(served, value, rtol=1e-4, atol=1e-4 * float(np.abs(value).max(initial=0.0)), equal_nan=True)
        else:
            same = np.array_equal(served, value)
        if not same:
            raise ServingError(f"{origin}: the served '{key}' is not what the SavedModel computes")


@contextlib.contextmanager
def _serving(folder: Path, name: str) -> Iterator[str]:
    """The address of a server that has nothing but this export."""
    with tempfile.TemporaryDirectory(prefix="medsynth-smoke-") as base:
        (Path(base) / "1").symlink_to(folder)
        log = Path(base) / "log"
        with running_server(name, base, timeout=START_SECONDS, log=log, environment=_ON_CPU) as address:
            yield address
