"""Classify, Regress and MultiInference: signatures over serialised tf.Examples. Messages are TensorFlow Serving's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, model_pb2, regression_pb2

from serving.server.status import StatusError

if TYPE_CHECKING:
    from serving.server.servable import Servable

CLASSIFY, REGRESS = tf.saved_model.CLASSIFY_METHOD_NAME, tf.saved_model.REGRESS_METHOD_NAME
_KINDS = {CLASSIFY: "classification", REGRESS: "regression"}
Results = Mapping[str, np.ndarray]  # by graph tensor name


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest, timeout_ms: int = 0, check_method: bool = False
) -> classification_pb2.ClassificationResponse:
    """Answers one Classify request. `check_method`: the signature must say that it classifies.

    Raises:
        StatusError: the request or the signature does not fit. tf.errors.OpError: the model refused it, or it took too long.
    """
    key = _key(request.model_spec)
    signature = _signature(servable, key, CLASSIFY, "No signature was found with the name: ", check_method)
    results, count = _run(servable, request.input, _input(signature, CLASSIFY), _classify_outputs(signature), timeout_ms)
    response = classification_pb2.ClassificationResponse(result=_classifications(signature, results, count))
    _fill_spec(response.model_spec, servable, key)
    return response


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest, timeout_ms: int = 0, check_method: bool = False
) -> regression_pb2.RegressionResponse:
    """Answers one Regress request; as `classify`."""
    key = _key(request.model_spec)
    signature = _signature(servable, key, REGRESS, "No signature was found with the name: ", check_method)
    results, count = _run(servable, request.input, _input(signature, REGRESS), _regress_outputs(signature), timeout_ms)
    response = regression_pb2.RegressionResponse(result=_regressions(signature, results, count))
    _fill_spec(response.model_spec, servable, key)
    return response


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest, timeout_ms: int = 0, check_method: bool = False
) -> inference_pb2.MultiInferenceResponse:
    """Runs several signatures of one version on the same examples, in one run of the graph; as `classify`."""
    tasks: list[tuple[str, str, SignatureDef]] = []
    inputs: dict[str, None] = {}
    outputs: dict[str, None] = {}
    for task in request.tasks:
        key, method = _key(task.model_spec), task.method_name
        _check_task(task, request.tasks[0], key, [known for known, _, _ in tasks])
        if method not in _KINDS:
            raise StatusError(StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
        signature = _signature(servable, key, method, "Requested signature not found in model graph: ", check_method)
        inputs[_input(signature, method)] = None
        outputs.update(dict.fromkeys(_classify_outputs(signature) if method == CLASSIFY else _regress_outputs(signature)))
        tasks.append((key, method, signature))
    if len(inputs) > 1:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Input tensor must be the same for all Signatures.")
    results, count = _run(servable, request.input, next(iter(inputs)), list(outputs), timeout_ms)
    response = inference_pb2.MultiInferenceResponse()
    for key, method, signature in tasks:
        result = response.results.add()
        if method == CLASSIFY:
            result.classification_result.CopyFrom(_classifications(signature, results, count))
        else:
            result.regression_result.CopyFrom(_regressions(signature, results, count))
        _fill_spec(result.model_spec, servable, key)
    return response


def check_tasks(request: inference_pb2.MultiInferenceRequest) -> None:
    """What can be said of a MultiInference request before a model is chosen.

    Raises:
        StatusError: INVALID_ARGUMENT: it has no tasks, or the first has no model.
    """
    if not request.tasks:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Inference request must have at least one task.")
    if not request.tasks[0].HasField("model_spec"):
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


def count_examples(request_input: input_pb2.Input) -> int:
    """How many examples a request brings."""
    kind = request_input.WhichOneof("kind")
    return len(getattr(request_input, kind).examples) if kind else 0


def _check_task(task: inference_pb2.InferenceTask, first: inference_pb2.InferenceTask, key: str, earlier: list[str]) -> None:
    if not task.model_spec.name:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Found ModelSpec with an empty model name.")
    if task.model_spec.name != first.model_spec.name:
        raise StatusError(
            StatusCode.INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name."
        )
    if key in earlier:
        raise StatusError(StatusCode.INVALID_ARGUMENT, f"Duplicate evaluation of signature: {key}")


def _key(spec: model_pb2.ModelSpec) -> str:
    return spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def _signature(servable: Servable, key: str, method: str, missing: str, check_method: bool) -> SignatureDef:
    signature = servable.signatures.get(key)
    if signature is None:
        raise StatusError(StatusCode.INVALID_ARGUMENT, missing + key)
    if check_method and signature.method_name != method:
        raise StatusError(
            StatusCode.INVALID_ARGUMENT,
            f"Expected {_KINDS[method]} signature method_name to be {method}. Was: {signature.method_name}",
        )
    return signature


def _input(signature: SignatureDef, method: str) -> str:
    if len(signature.inputs) != 1:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Expected one input Tensor.")
    if tf.saved_model.CLASSIFY_INPUTS not in signature.inputs:  # "inputs", for regression as well
        raise StatusError(
            StatusCode.FAILED_PRECONDITION, f"No {_KINDS[method]} inputs found in SignatureDef: {_one_line(signature)}"
        )
    return signature.inputs[tf.saved_model.CLASSIFY_INPUTS].name


def _classify_outputs(signature: SignatureDef) -> list[str]:
    outputs = signature.outputs
    if len(outputs) not in (1, 2):
        raise StatusError(StatusCode.INVALID_ARGUMENT, f"Expected one or two output Tensors, found {len(outputs)}")
    names = (tf.saved_model.CLASSIFY_OUTPUT_CLASSES, tf.saved_model.CLASSIFY_OUTPUT_SCORES)
    found = [outputs[name].name for name in names if name in outputs]
    if not found:
        raise StatusError(
            StatusCode.FAILED_PRECONDITION,
            f'Expected classification signature outputs to contain at least one of "{names[0]}" or "{names[1]}". '
            f"Signature was: {_one_line(signature)}",
        )
    return found


def _regress_outputs(signature: SignatureDef) -> list[str]:
    if len(signature.outputs) != 1:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Expected one output Tensor.")
    if tf.saved_model.REGRESS_OUTPUTS not in signature.outputs:
        raise StatusError(
            StatusCode.FAILED_PRECONDITION, f"No regression outputs found in SignatureDef: {_one_line(signature)}"
        )
    return [signature.outputs[tf.saved_model.REGRESS_OUTPUTS].name]


def _serialized(request_input: input_pb2.Input) -> Iterator[bytes]:
    """The examples; one with a context is the two serialised one after the other, which protobuf reads as merged."""
    if request_input.WhichOneof("kind") == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
        for example in request_input.example_list_with_context.examples:
            yield context + example.SerializeToString()
    else:
        for example in request_input.example_list.examples:
            yield example.SerializeToString()


def _run(
    servable: Servable, request_input: input_pb2.Input, input_name: str, outputs: list[str], timeout_ms: int
) -> tuple[Results, int]:
    examples = list(_serialized(request_input))
    if not examples:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "Input is empty")
    values = servable.run({input_name: np.array(examples, object)}, outputs, timeout_ms)
    return dict(zip(outputs, values)), len(examples)


def _classifications(signature: SignatureDef, results: Results, count: int) -> classification_pb2.ClassificationResult:
    columns: dict[str, np.ndarray] = {}
    for alias, kind in ((tf.saved_model.CLASSIFY_OUTPUT_CLASSES, "O"), (tf.saved_model.CLASSIFY_OUTPUT_SCORES, "f")):
        if alias in signature.outputs:
            columns[alias] = _checked_matrix(alias, results[signature.outputs[alias].name], kind, count)
    sizes = [column.shape[1] for column in columns.values()]
    if len(set(sizes)) > 1:
        raise StatusError(
            StatusCode.INVALID_ARGUMENT,
            f"Tensors class and score should match in dim_size(1). Got {sizes[0]} vs. {sizes[1]}",
        )
    labels, scores = columns.get(tf.saved_model.CLASSIFY_OUTPUT_CLASSES), columns.get(tf.saved_model.CLASSIFY_OUTPUT_SCORES)
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        classifications = result.classifications.add()
        for column in range(sizes[0]):
            classifications.classes.add(
                label=None if labels is None else labels[row, column],
                score=None if scores is None else scores[row, column],
            )
    return result


def _checked_matrix(alias: str, array: np.ndarray, kind: str, count: int) -> np.ndarray:
    if array.ndim != 2:
        raise StatusError(
            StatusCode.INVALID_ARGUMENT, f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
        )
    expected = np.dtype(object) if kind == "O" else np.dtype(np.float32)
    if array.dtype != expected:
        name = "DT_STRING" if kind == "O" else "DT_FLOAT"
        raise StatusError(StatusCode.INVALID_ARGUMENT, f"Expected {alias} Tensor of {name}. Got: {_dtype_name(array)}")
    if len(array) != count:
        raise StatusError(StatusCode.INVALID_ARGUMENT, f"Expected {alias} output batch size of {count}. Got: {len(array)}")
    return array


def _regressions(signature: SignatureDef, results: Results, count: int) -> regression_pb2.RegressionResult:
    values = results[signature.outputs[tf.saved_model.REGRESS_OUTPUTS].name]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise StatusError(
            StatusCode.INVALID_ARGUMENT,
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(values)}",
        )
    if len(values) != count:
        raise StatusError(
            StatusCode.INVALID_ARGUMENT, f"Input batch size did not match output batch size: {count} vs. {len(values)}"
        )
    if values.dtype != np.float32:
        raise StatusError(StatusCode.INVALID_ARGUMENT, f"Expected output Tensor of DT_FLOAT. Got: {_dtype_name(values)}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _fill_spec(spec: model_pb2.ModelSpec, servable: Servable, key: str) -> None:
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = key


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _dtype_name(array: np.ndarray) -> str:
    return types_pb2.DataType.Name(tf.as_dtype(array.dtype).as_datatype_enum)


def _one_line(signature: SignatureDef) -> str:
    return " ".join(str(signature).split())
