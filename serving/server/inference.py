"""Requests of either road (gRPC, REST) to the version that answers them, counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server import examples
from serving.server.manager import Manager
from serving.server.metrics import Metrics
from serving.server.prediction import predict
from serving.server.servable import Servable
from serving.server.status import StatusError, as_status

SIGNATURE_FIELD = "signature_def"
T = TypeVar("T")


class Inference:
    """What TensorFlow Serving's services do, free of how a request came. Raises StatusError or tf.errors.OpError."""

    def __init__(self, manager: Manager, metrics: Metrics, check_method: bool = False):
        """`check_method`: Classify and Regress want signatures that name that method."""
        self.manager = manager
        self.metrics = metrics
        self._check_method = check_method

    def predict(self, request: predict_pb2.PredictRequest, timeout_ms: int, entrypoint: str) -> predict_pb2.PredictResponse:
        """Runs a signature on tensors."""
        return self._counted(
            request, request.model_spec, "predict", entrypoint, lambda servable: predict(servable, request, timeout_ms)
        )

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_ms: int, entrypoint: str
    ) -> classification_pb2.ClassificationResponse:
        """Classes and scores of tf.Examples."""
        self._count_examples(request.model_spec.name, request)
        return self._counted(
            request,
            request.model_spec,
            "classify",
            entrypoint,
            lambda servable: examples.classify(servable, request, timeout_ms, self._check_method),
        )

    def regress(
        self, request: regression_pb2.RegressionRequest, timeout_ms: int, entrypoint: str
    ) -> regression_pb2.RegressionResponse:
        """A number for each tf.Example."""
        self._count_examples(request.model_spec.name, request)
        return self._counted(
            request,
            request.model_spec,
            "regress",
            entrypoint,
            lambda servable: examples.regress(servable, request, timeout_ms, self._check_method),
        )

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, timeout_ms: int, entrypoint: str
    ) -> inference_pb2.MultiInferenceResponse:
        """Several signatures of one model on the same tf.Examples."""
        examples.check_tasks(request)
        spec = request.tasks[0].model_spec
        self._count_examples(spec.name, request)
        return self._counted(
            None,
            spec,
            "multi_inference",
            entrypoint,
            lambda servable: examples.multi_inference(servable, request, timeout_ms, self._check_method),
        )

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        require_spec(request)
        if not request.metadata_field:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_FIELD:
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.manager.servable(request.model_spec) as servable:
            for key, signature in servable.signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response

    def status(self, request: get_model_status_pb2.GetModelStatusRequest) -> get_model_status_pb2.GetModelStatusResponse:
        """Where each version of a model is in its life."""
        require_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self.manager.statuses(request.model_spec):
            status = response.model_version_status.add(version=version.number, state=version.state)
            status.status.SetInParent()  # OK is said too
            if version.error is not None:
                status.status.error_code = version.error.code.value[0]
                status.status.error_message = version.error.message
        return response

    def _counted(
        self, request: Any, spec: model_pb2.ModelSpec, api: str, entrypoint: str, answer: Callable[[Servable], T]
    ) -> T:
        started, code = time.perf_counter(), "OK"
        name = "unknown"  # a client's invention must not become a label: the page would grow without bound
        try:
            if request is not None:
                require_spec(request)
            with self.manager.servable(spec) as servable:
                name = servable.name
                run_started = time.perf_counter()
                response = answer(servable)
                micros = 1e6 * (time.perf_counter() - run_started)
                self.metrics.runtime_latency.observe(micros, name, api.title().replace("_", ""), servable.runtime)
        except (StatusError, tf.errors.OpError) as error:
            code = as_status(error).code.name
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self.metrics.request_count.add(name, code)
            if code == "OK":
                self.metrics.request_latency.observe(1e6 * (time.perf_counter() - started), name, api, entrypoint)
        return response

    def _count_examples(self, name: str, request: Any) -> None:
        if self.manager.has_model(name):
            count = examples.count_examples(request.input)
            self.metrics.example_counts.observe(count, name)
            self.metrics.example_count_total.add(name, amount=count)


def require_spec(request: Any) -> None:
    """Every request names its model.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if not request.HasField("model_spec"):
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
