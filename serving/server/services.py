"""The gRPC services of tensorflow-serving-api."""

from __future__ import annotations

import math

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
    status_pb2,
)

from serving.server.inference import Inference
from serving.server.reloading import Reloading
from serving.server.status import StatusError, answering

ENTRYPOINT = "GRPC"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Each runs within the caller's deadline, and not at all if that has passed in the queue."""

    def __init__(self, inference: Inference):
        self._inference = inference

    @answering
    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        """Runs a signature on tensors."""
        return self._inference.predict(request, _remaining_ms(context), ENTRYPOINT)

    @answering
    def Classify(
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Classes and scores of tf.Examples."""
        return self._inference.classify(request, _remaining_ms(context), ENTRYPOINT)

    @answering
    def Regress(
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """A number for each tf.Example."""
        return self._inference.regress(request, _remaining_ms(context), ENTRYPOINT)

    @answering
    def MultiInference(
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Several signatures of one model on the same tf.Examples."""
        return self._inference.multi_inference(request, _remaining_ms(context), ENTRYPOINT)

    @answering
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        return self._inference.metadata(request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, inference: Inference, reloading: Reloading):
        self._inference = inference
        self._reloading = reloading

    @answering
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Where each version of a model is in its life."""
        return self._inference.status(request)

    @answering
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the list of models; answers when they are loaded."""
        if not request.HasField("config"):
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Request does not have ModelServerConfig.")
        self._reloading.by_request(request.config)
        return model_management_pb2.ReloadConfigResponse(status=status_pb2.StatusProto())


def _remaining_ms(context: grpc.ServicerContext) -> int:
    """Milliseconds until the caller's deadline, 0 for none.

    Raises:
        StatusError: the deadline has passed or the caller has gone: the work would be for nobody.
    """
    remaining = context.time_remaining()
    if not context.is_active() or (remaining is not None and remaining <= 0):
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded before the request was started")
    return 0 if remaining is None else max(1, math.ceil(min(remaining, 2**31) * 1000))
