"""Predict: checks a request against the signature, runs it, and packs the answer. Messages are TensorFlow Serving's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorflow_serving.apis import predict_pb2

from serving.server.status import StatusError
from serving.tensors import fill_proto, from_proto

if TYPE_CHECKING:
    from serving.server.servable import Servable


def predict(servable: Servable, request: predict_pb2.PredictRequest, timeout_ms: int = 0) -> predict_pb2.PredictResponse:
    """Answers one Predict request.

    Raises:
        StatusError: the request does not fit the signature. tf.errors.OpError: the model refused it, or it took too long.
    """
    key = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    if key not in servable.signatures:
        raise StatusError(StatusCode.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
    signature = servable.signatures[key]
    feeds = _feeds(signature, request)
    aliases = _output_aliases(signature, request.output_filter)
    values = servable.run(feeds, [signature.outputs[alias].name for alias in aliases], timeout_ms)

    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = key
    for alias, value in zip(aliases, values):
        fill_proto(response.outputs[alias], value)
    return response


def _feeds(signature: SignatureDef, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    """Arrays by graph tensor name, each of its input's dtype and shape."""
    sent, expected = set(request.inputs), set(signature.inputs)
    if len(sent) != len(expected):
        raise StatusError(
            StatusCode.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_braced(sent)}) != "
            f"len({_braced(expected)}). Sent extra: {_braced(sent - expected)}. Missing but required: "
            f"{_braced(expected - sent)}.",
        )
    for alias in sorted(sent - expected):
        raise StatusError(
            StatusCode.INVALID_ARGUMENT,
            f"input tensor alias not found in signature: {alias}. Inputs expected to be in the set {_braced(expected)}.",
        )
    feeds = {}
    for index, alias in enumerate(sorted(sent)):
        info = signature.inputs[alias]
        _check_dtype(index, alias, request.inputs[alias].dtype, info)
        try:
            array = from_proto(request.inputs[alias])
        except ValueError as error:
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"tensor parsing error: {alias}: {error}") from error
        shape = tf.TensorShape(info.tensor_shape)
        if not shape.is_compatible_with(array.shape):
            raise StatusError(
                StatusCode.INVALID_ARGUMENT, f"input '{alias}' has shape {list(array.shape)}, expected {_shape_text(shape)}"
            )
        feeds[info.name] = array
    return feeds


def _check_dtype(index: int, alias: str, given: int, info: TensorInfo) -> None:
    if given != info.dtype:
        expected = tf.as_dtype(info.dtype).name
        try:
            name = tf.as_dtype(given).name
        except TypeError:
            name = f"unknown dtype {given}"
        raise StatusError(
            StatusCode.INVALID_ARGUMENT, f"Expects arg[{index}] to be {expected} but {name} is provided (input '{alias}')"
        )


def _output_aliases(signature: SignatureDef, output_filter: Iterable[str]) -> list[str]:
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise StatusError(
                StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_braced(signature.outputs)}.",
            )
        if alias in aliases:
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases or sorted(signature.outputs)


def _braced(names: Iterable[str] | Mapping[str, object]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _shape_text(shape: tf.TensorShape) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in shape.as_list()) + "]"
