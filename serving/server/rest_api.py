"""The REST API of TensorFlow Serving: which path asks for what, and what is answered; free of sockets."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server import json_examples, json_tensors
from serving.server.inference import SIGNATURE_FIELD, Inference
from serving.server.status import StatusError, as_status
from serving.tensors import fill_proto, from_proto

ENTRYPOINT = "REST"
_CHOICE = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_RUN = re.compile(_CHOICE + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_ASK = re.compile(_CHOICE + r"(?P<metadata>/metadata)?", re.IGNORECASE)
HTTP_CODES = {
    StatusCode.OK: 200,
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.UNAUTHENTICATED: 401,
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response before it is written."""

    code: int
    body: bytes
    content_type: str = "application/json"


def failure(error: Exception) -> Answer:
    """The JSON of an error, with the HTTP code of its status."""
    status = as_status(error)
    return Answer(HTTP_CODES.get(status.code, 500), json_tensors.dump({"error": status.message}))


class RestApi:
    """Answers requests by their method, path and body."""

    def __init__(self, inference: Inference, timeout_ms: int):
        self._inference = inference
        self._timeout_ms = timeout_ms

    def answer(self, http_method: str, path: str, body: bytes) -> Answer:
        """The answer to a request under /v1/; failures are answers too."""
        try:
            run, ask = _RUN.fullmatch(path), _ASK.fullmatch(path)
            if http_method == "POST" and run:
                document = json_tensors.parse_object(body)
                spec = _spec(run)
                spec.signature_name = json_tensors.signature_name(document)
                methods = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
                return Answer(200, methods[run["method"].lower()](spec, document))
            if http_method == "GET" and ask:
                return Answer(200, self._metadata(_spec(ask)) if ask["metadata"] else self._status(_spec(ask)))
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"Malformed request: {http_method} {path}")
        except Exception as error:
            return failure(error)

    def _predict(self, spec: model_pb2.ModelSpec, document: dict[str, Any]) -> bytes:
        with self._inference.manager.servable(spec) as servable:
            key = spec.signature_name or "serving_default"
            if key not in servable.signatures:
                raise StatusError(StatusCode.INVALID_ARGUMENT, f'Serving signature name: "{key}" not found in signature def')
            inputs = dict(servable.signatures[key].inputs)
        if not inputs:
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"Failed to get input map for signature: {key}")
        arrays, form = json_tensors.predict_inputs(document, inputs)
        request = predict_pb2.PredictRequest(model_spec=spec)
        for name, array in arrays.items():
            fill_proto(request.inputs[name], array)
        response = self._inference.predict(request, self._timeout_ms, ENTRYPOINT)
        return json_tensors.predict_answer({name: from_proto(proto) for name, proto in response.outputs.items()}, form)

    def _classify(self, spec: model_pb2.ModelSpec, document: dict[str, Any]) -> bytes:
        request = classification_pb2.ClassificationRequest(model_spec=spec, input=json_examples.examples_input(document))
        return json_examples.classification_answer(self._inference.classify(request, self._timeout_ms, ENTRYPOINT).result)

    def _regress(self, spec: model_pb2.ModelSpec, document: dict[str, Any]) -> bytes:
        request = regression_pb2.RegressionRequest(model_spec=spec, input=json_examples.examples_input(document))
        return json_examples.regression_answer(self._inference.regress(request, self._timeout_ms, ENTRYPOINT).result)

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        response = self._inference.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
        return json.dumps(_as_dict(response), indent=1).encode()

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_FIELD])
        response = self._inference.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_FIELD].Unpack(signatures)
        document = {"model_spec": _as_dict(response.model_spec), "metadata": {SIGNATURE_FIELD: _as_dict(signatures)}}
        return json.dumps(document, indent=1).encode()


def _as_dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, including_default_value_fields=True, preserving_proto_field_name=True)


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        if int(match["version"]) >= 2**63:
            message = f"Failed to convert version: {match['version']} to numeric."
            raise StatusError(StatusCode.INVALID_ARGUMENT, message)
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = match["label"]
    return spec
