"""JSON of the REST classify and regress APIs to tf.Examples, and their results back. Messages are TensorFlow Serving's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from grpc import StatusCode
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.server.json_tensors import decode_base64, dump, is_base64, shortest
from serving.server.status import StatusError


def examples_input(document: Mapping[str, Any]) -> input_pb2.Input:
    """The `examples` of a request, with their `context` where there is one.

    Raises:
        StatusError: INVALID_ARGUMENT: no list of objects of features.
    """
    examples = document.get("examples")
    if "examples" not in document:
        raise _invalid("When method is classify, key 'examples' is expected and was not found")
    if not isinstance(examples, list):
        raise _invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise _invalid("'examples' value is an empty array")
    found = [_example(example) for example in examples]
    if "context" in document:
        context = _example(document["context"])
        return input_pb2.Input(example_list_with_context=input_pb2.ExampleListWithContext(examples=found, context=context))
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=found))


def classification_answer(result: classification_pb2.ClassificationResult) -> bytes:
    """`results`: per example a list of [label, score]."""
    rows = [
        [[one.label, shortest(np.array(one.score, np.float32)).item()] for one in classifications.classes]
        for classifications in result.classifications
    ]
    return dump({"results": rows})


def regression_answer(result: regression_pb2.RegressionResult) -> bytes:
    """`results`: a number per example."""
    return dump({"results": shortest(np.array([one.value for one in result.regressions], np.float32)).tolist()})


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise _invalid(f"Example must be JSON object but got JSON {_json_type(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        values = content if isinstance(content, list) and content else [content]
        example.features.feature[name].CopyFrom(_feature(name, [] if content == [] else values))
    return example


def _feature(name: str, values: list[Any]) -> feature_pb2.Feature:
    kinds = [_kind(name, value) for value in values]
    for kind in kinds:
        if kind != kinds[0]:
            raise _invalid(f"Unexpected element type in feature: {name} expecting type: {kinds[0]}")
    feature = feature_pb2.Feature()
    if not kinds:
        return feature
    if kinds[0] == "bytes":
        feature.bytes_list.value.extend(
            decode_base64(value) if isinstance(value, dict) else value.encode("utf-8", "surrogatepass") for value in values
        )
    elif kinds[0] == "float":
        if any(abs(value) > np.finfo(np.float32).max and not np.isinf(value) for value in values):
            raise _invalid(f"Cannot convert JSON value of feature {name} to float without loss of precision.")
        feature.float_list.value.extend(values)
    else:
        if any(not -(2**63) <= value < 2**63 for value in values):
            raise _invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        feature.int64_list.value.extend(map(int, values))
    return feature


def _kind(name: str, value: Any) -> str:
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    if isinstance(value, (bool, int)):
        return "int64"
    if isinstance(value, float):
        return "float"
    raise _invalid(f"Feature: {name} has element with unexpected JSON type: {_json_type(value)}")


def _json_type(value: Any) -> str:
    return {type(None): "Null", bool: str(value), str: "String", list: "Array", dict: "Object"}.get(type(value), "Number")


def _invalid(message: str) -> StatusError:
    return StatusError(StatusCode.INVALID_ARGUMENT, message)
