"""Malformed requests, generated: what is wrong with each, its bytes, and the code that is right for it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, regression_pb2

from tests.serving.models import example

MODEL = "half_plus_two_tf2"
GOOD = {
    "numbers": np.ones((2, 3), np.float32),
    "text": np.array([b"a", b"b"], object),
    "flag": np.array([True, False]),
    "count": np.array([1, 2], np.int64),
}
NUMPY_TYPES = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32]
NUMPY_TYPES += [np.uint64, np.bool_, np.complex64, np.complex128, np.object_]
NO_DATA_TYPES = [0, 20, 21, 77, 101, 103, 109, 10**6]  # invalid, resource, variant, unknown, references
NAMES = ["../etc/passwd", "a" * 10_000, "モデル", "half plus two", "/", "half_plus_two_tf2 ", "HALF_PLUS_TWO_TF2", "%00", "\n"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """`method`: of PredictionService. `code`: the gRPC status that is right."""

    what: str
    method: str
    content: bytes
    code: str


def good() -> predict_pb2.PredictRequest:
    """A request that is answered."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, "mixed"
    for name, value in GOOD.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def _predict(what: str, code: str = "INVALID_ARGUMENT", **changes: Any) -> Fault:
    """A good Predict request with inputs replaced (None: left out)."""
    request = good()
    for name, value in changes.items():
        if name in request.inputs:
            del request.inputs[name]
        if value is not None:
            request.inputs[name].CopyFrom(
                value if isinstance(value, type(request.inputs[name])) else tf.make_tensor_proto(value)
            )
    return Fault(what, "Predict", request.SerializeToString(), code)


def generate() -> list[Fault]:
    """All of them, the same each time."""
    makers = (_types, _shapes, _contents, _inputs, _specs, _filters, _truncated, _examples, _tasks)
    return list(itertools.chain.from_iterable(maker() for maker in makers))


def _types() -> Iterator[Fault]:
    for name, array in GOOD.items():
        for kind in NUMPY_TYPES:
            if kind != array.dtype.type:
                wrong = np.full(array.shape, b"1", object) if kind is np.object_ else np.ones(array.shape, kind)
                yield _predict(f"{name} as {np.dtype(kind)}", **{name: wrong})
        for number in NO_DATA_TYPES:
            proto = tf.make_tensor_proto(array)
            proto.dtype = number
            yield _predict(f"{name} of type number {number}", **{name: proto})


def _shapes() -> Iterator[Fault]:
    for name, array in GOOD.items():
        for rank in range(7):
            if rank != array.ndim:
                yield _predict(f"{name} of rank {rank}", **{name: np.full((1,) * rank, array.flat[0], array.dtype)})
        sizes = [(-1,), (-(2**40),), (2**62, 4), (2**31, 2**31), (2**40,), (0, -1)]
        for dims in sizes:
            proto = tf.make_tensor_proto(array)
            del proto.tensor_shape.dim[:]
            for size in dims:
                proto.tensor_shape.dim.add(size=size)
            yield _predict(f"{name} declared as {dims}", **{name: proto})
        proto = tf.make_tensor_proto(array)
        proto.tensor_shape.unknown_rank = True
        yield _predict(f"{name} of unknown rank", **{name: proto})


def _contents() -> Iterator[Fault]:
    for name in ("numbers", "flag", "count"):
        content = GOOD[name].tobytes()
        for length in {*range(1, len(content)), len(content) + 1, 2 * len(content), 10**6}:
            proto = tf.make_tensor_proto(GOOD[name])
            proto.tensor_content = (content * (length // len(content) + 1))[:length]
            yield _predict(f"{name} of {length} bytes", **{name: proto})


def _inputs() -> Iterator[Fault]:
    for size in range(len(GOOD)):
        for kept in itertools.combinations(GOOD, size):
            yield _predict(f"only {kept}", **dict.fromkeys(set(GOOD) - set(kept)))
    for name, array in GOOD.items():
        for alias in (name + " ", name.upper(), "serving_default_" + name + ":0", "", "x" * 1000):
            yield _predict(f"{alias[:40]!r} for {name}", **{name: None, alias: array})
            yield _predict(f"{alias[:40]!r} besides {name}", **{alias: array})


def _specs() -> Iterator[Fault]:
    def spec(what: str, code: str, change: Any) -> Fault:
        request = good()
        change(request.model_spec)
        return Fault(what, "Predict", request.SerializeToString(), code)

    for name in NAMES:
        yield spec(f"model {name[:20]!r}", "NOT_FOUND", lambda s, name=name: setattr(s, "name", name))
        yield spec(f"signature {name[:20]!r}", "FAILED_PRECONDITION", lambda s, name=name: setattr(s, "signature_name", name))
        yield spec(f"label {name[:20]!r}", "INVALID_ARGUMENT", lambda s, name=name: setattr(s, "version_label", name))
    for number in (0, 2, 99, 2**31, 2**63 - 1, -1, -(2**63)):
        yield spec(f"version {number}", "NOT_FOUND", lambda s, number=number: setattr(s.version, "value", number))
    yield spec("no model", "INVALID_ARGUMENT", lambda s: setattr(s, "name", ""))
    yield Fault("nothing at all", "Predict", b"", "INVALID_ARGUMENT")


def _filters() -> Iterator[Fault]:
    for wanted in (["no"], ["sums", "no"], ["sums", "sums"], [""], ["sums:0"], ["x" * 10_000], ["text", "flag", "text"]):
        request = good()
        request.output_filter.extend(wanted)
        yield Fault(f"outputs {str(wanted)[:40]}", "Predict", request.SerializeToString(), "INVALID_ARGUMENT")


def _truncated() -> Iterator[Fault]:
    """Cut off, or with bytes changed, such that they are no protobuf any more: INTERNAL, as gRPC itself says."""
    whole = good().SerializeToString()
    rng = random.Random(0)
    cut = [whole[:length] for length in range(1, len(whole))]
    noise = [bytes(rng.randrange(256) for _ in range(size)) for size in range(1, 60)]
    for content in cut + noise:
        try:
            predict_pb2.PredictRequest.FromString(content)
        except Exception:
            yield Fault(f"no protobuf, {len(content)} bytes", "Predict", content, "INTERNAL")


def _examples() -> Iterator[Fault]:
    for method, kind in (("Regress", regression_pb2.RegressionRequest), ("Classify", classification_pb2.ClassificationRequest)):
        signature = method.lower()
        wrong = {
            "no examples": [],
            "no features": [tf.train.Example()],
            "another feature": [example(z=1.0)],
            "a good and a bad one": [example(x=1.0), example(z=1.0)],
            "two values": [_feature(tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2])))],
            "no value": [_feature(tf.train.Feature(float_list=tf.train.FloatList()))],
            "an integer": [_feature(tf.train.Feature(int64_list=tf.train.Int64List(value=[1])))],
            "text": [_feature(tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"1"])))],
        }
        for what, found in wrong.items():
            request = kind()
            request.model_spec.name, request.model_spec.signature_name = MODEL, signature
            request.input.example_list.examples.extend(found)
            yield Fault(f"{method}: {what}", method, request.SerializeToString(), "INVALID_ARGUMENT")
        for name in NAMES:
            request = kind()
            request.model_spec.name, request.model_spec.signature_name = MODEL, name
            request.input.example_list.examples.append(example(x=1.0))
            yield Fault(f"{method}: signature {name[:20]!r}", method, request.SerializeToString(), "INVALID_ARGUMENT")
        yield Fault(f"{method}: nothing", method, b"", "INVALID_ARGUMENT")


def _feature(feature: tf.train.Feature) -> tf.train.Example:
    return tf.train.Example(features=tf.train.Features(feature={"x": feature}))


def _tasks() -> Iterator[Fault]:
    for tasks, code in (
        ([], "INVALID_ARGUMENT"),
        ([("regress", "tensorflow/serving/predict")], "UNIMPLEMENTED"),
        ([("regress", "")], "UNIMPLEMENTED"),
        ([("no", "tensorflow/serving/regress")], "INVALID_ARGUMENT"),
        ([("regress", "tensorflow/serving/regress")] * 2, "INVALID_ARGUMENT"),
        ([("mixed", "tensorflow/serving/regress")], "INVALID_ARGUMENT"),
    ):
        request = inference_pb2.MultiInferenceRequest()
        request.input.example_list.examples.append(example(x=1.0))
        for signature, method in tasks:
            task = request.tasks.add(method_name=method)
            task.model_spec.name, task.model_spec.signature_name = MODEL, signature
        yield Fault(f"tasks {tasks}", "MultiInference", request.SerializeToString(), code)


def rest_bodies() -> list[bytes]:
    """Bodies of a REST predict request for the signature `mixed`, none of which can be answered."""
    row = {"numbers": [1, 2.5], "text": "a", "flag": True, "count": 3}
    whole = json.dumps({"signature_name": "mixed", "instances": [row]}).encode()
    bodies = [whole[:length] for length in range(len(whole))]
    wrong_values: list[Any] = [None, "x", True, 1.5, [], [[]], {}, {"b64": "!"}, {"b64": 3}, 10**400, [1, [2]], -1e400]
    for name, value in itertools.product(row, wrong_values):
        if (name, value) not in (("flag", True), ("text", "x"), ("numbers", [])):
            bodies.append(json.dumps({"signature_name": "mixed", "instances": [{**row, name: value}]}).encode())
    bodies += [json.dumps({"signature_name": "mixed", "instances": value}).encode() for value in wrong_values]
    bodies += [json.dumps({"signature_name": value, "instances": [row]}).encode() for value in wrong_values]
    return bodies
