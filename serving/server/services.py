"""The gRPC services of tensorflow-serving-api over a Manager."""

from __future__ import annotations

import math

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    status_pb2,
)

from serving.server.manager import Manager
from serving.server.prediction import predict
from serving.server.status import StatusError, answering

SIGNATURE_FIELD = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, manager: Manager):
        self._manager = manager

    @answering
    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        """Runs a signature; within the caller's deadline, and not at all if that has passed in the queue."""
        _require_spec(request)
        timeout_ms = _remaining_ms(context)
        with self._manager.servable(request.model_spec) as servable:
            return predict(servable, request, timeout_ms)

    @answering
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        _require_spec(request)
        if not request.metadata_field:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_FIELD:
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._manager.servable(request.model_spec) as servable:
            for key, signature in servable.signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, manager: Manager):
        self._manager = manager

    @answering
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Where each version of a model is in its life."""
        _require_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self._manager.statuses(request.model_spec):
            status = response.model_version_status.add(version=version.number, state=version.state)
            if version.error is not None:
                status.status.error_code = version.error.code.value[0]
                status.status.error_message = version.error.message
        return response

    @answering
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the list of models; answers when they are loaded."""
        if not request.HasField("config"):
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Request does not have ModelServerConfig.")
        self._manager.configure(request.config)
        return model_management_pb2.ReloadConfigResponse(status=status_pb2.StatusProto())


def _require_spec(request: predict_pb2.PredictRequest) -> None:
    if not request.HasField("model_spec"):
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


def _remaining_ms(context: grpc.ServicerContext) -> int:
    """Milliseconds until the caller's deadline, 0 for none.

    Raises:
        StatusError: the deadline has passed or the caller has gone: the work would be for nobody.
    """
    remaining = context.time_remaining()
    if not context.is_active() or (remaining is not None and remaining <= 0):
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded before the request was started")
    return 0 if remaining is None else max(1, math.ceil(min(remaining, 2**31) * 1000))
