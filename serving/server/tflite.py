"""TFLite models (--prefer_tflite_model): `model.tflite` in a version's folder, in a pool of interpreters."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from serving.server.batching import Batcher
from serving.server.metrics import Metrics
from serving.server.servable import Servable
from serving.server.status import StatusError

FILE = "model.tflite"
Runner = Callable[..., dict[str, np.ndarray]]  # inputs by alias → outputs by alias


class TFLiteServable(Servable):
    """Interpreters of one model, each for one request at a time. A run that has begun is not cut short by its deadline."""

    runtime = "TFLite"

    def __init__(
        self,
        name: str,
        version: int,
        path: Path,
        *,
        interpreters: int,
        threads: int,
        metrics: Metrics,
        batcher: Batcher | None = None,
    ):
        """Loads `model.tflite` in the folder `path`; `threads` per interpreter.

        Raises:
            OSError, ValueError: the file cannot be read or is no TFLite model.
        """
        content = (path / FILE).read_bytes()
        first = tf.lite.Interpreter(model_content=content, num_threads=threads)
        pool = [first] + [tf.lite.Interpreter(model_content=content, num_threads=threads) for _ in range(interpreters - 1)]
        self._free: queue.Queue[dict[str, Runner]] = queue.Queue()
        for interpreter in pool:
            self._free.put(_runners(interpreter))
        signatures = _signatures(first)
        self._aliases = {
            info.name: (key, alias)
            for key, definition in signatures.items()
            for alias, info in (*definition.inputs.items(), *definition.outputs.items())
        }
        super().__init__(name, version, signatures, metrics, batcher)

    def _run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int) -> list[np.ndarray]:
        (key, _), *_ = [self._aliases[name] for name in fetches]
        with self._interpreter(timeout_ms) as runners:
            try:
                outputs = runners[key](**{self._aliases[name][1]: value for name, value in feeds.items()})
            except (ValueError, RuntimeError) as error:
                raise StatusError(StatusCode.INVALID_ARGUMENT, " ".join(str(error).split())) from error
            return [np.array(outputs[self._aliases[name][1]]) for name in fetches]  # the interpreter writes over its own

    @contextlib.contextmanager
    def _interpreter(self, timeout_ms: int) -> Iterator[dict[str, Runner]]:
        try:
            runners = self._free.get(timeout=timeout_ms / 1000 if timeout_ms else None)
        except queue.Empty:
            message = "Deadline exceeded while the request waited for an interpreter"
            raise StatusError(StatusCode.DEADLINE_EXCEEDED, message) from None
        try:
            yield runners
        finally:
            self._free.put(runners)

    def close(self) -> None:
        """Lets go of the interpreters."""
        self._free = queue.Queue()


def _runners(interpreter: tf.lite.Interpreter) -> dict[str, Runner]:
    keys = list(interpreter.get_signature_list())
    if keys:
        return {key: interpreter.get_signature_runner(key) for key in keys}
    return {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: _plain_runner(interpreter)}


def _plain_runner(interpreter: tf.lite.Interpreter) -> Runner:
    """For a model without signatures: its tensors by their own names."""

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        details = interpreter.get_input_details()
        for detail in details:
            interpreter.resize_tensor_input(detail["index"], inputs[detail["name"]].shape)
        interpreter.allocate_tensors()
        for detail in details:
            interpreter.set_tensor(detail["index"], inputs[detail["name"]])
        interpreter.invoke()
        return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}

    return run


def _signatures(interpreter: tf.lite.Interpreter) -> dict[str, SignatureDef]:
    keys = list(interpreter.get_signature_list())
    if not keys:
        key = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        inputs, outputs = (
            {detail["name"]: detail for detail in details}
            for details in (interpreter.get_input_details(), interpreter.get_output_details())
        )
        return {key: _signature(key, inputs, outputs)}
    runners = {key: interpreter.get_signature_runner(key) for key in keys}
    return {key: _signature(key, runner.get_input_details(), runner.get_output_details()) for key, runner in runners.items()}


def _signature(key: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> SignatureDef:
    definition = SignatureDef(method_name=tf.saved_model.PREDICT_METHOD_NAME)
    for side, details in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for alias, detail in details.items():
            side[alias].CopyFrom(
                TensorInfo(
                    name=f"{key}/{alias}",  # two signatures may share a tensor
                    dtype=tf.as_dtype(detail["dtype"]).as_datatype_enum,
                    tensor_shape=tf.TensorShape(
                        [None if size < 0 else int(size) for size in detail["shape_signature"]]
                    ).as_proto(),
                )
            )
    return definition
