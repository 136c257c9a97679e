"""Who computes a batch: a model server, or a SavedModel in this process. Both pickle, and connect or load on first use."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import ServingError
from serving.messages import TLS, ModelMetadata, Prediction


@dataclasses.dataclass
class Predictor(abc.ABC):
    """Answers `predict` and `metadata` as serving.client.Client does."""

    model: str
    _opened: Any = dataclasses.field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    @abc.abstractmethod
    def metadata(self, version: int | None) -> ModelMetadata:
        """The version that answers, and its signatures; `version` None: the newest."""

    @abc.abstractmethod
    def predict(self, inputs: Mapping[str, np.ndarray], signature: str, version: int, output: str) -> Prediction:
        """Runs a signature; only `output` is computed.

        Raises:
            ServingError: INVALID_ARGUMENT: the inputs are at fault; anything else is not theirs.
        """

    def close(self) -> None:
        """Lets go of the connection or the model."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


@dataclasses.dataclass
class ServerPredictor(Predictor):
    """A model on the server at `address`."""

    address: str = ""
    token: str | None = None
    tls: TLS | None = None
    timeout: float = 60.0

    def _client(self) -> Any:
        from serving.client import Client

        if self._opened is None:
            self._opened = Client(self.address, self.token, self.tls)
        return self._opened

    def metadata(self, version: int | None) -> ModelMetadata:
        """As the server says; waits until the model is ready."""
        self._client().wait_ready(self.model, timeout=self.timeout)
        return self._client().metadata(self.model, version)

    def predict(self, inputs: Mapping[str, np.ndarray], signature: str, version: int, output: str) -> Prediction:
        """One request, with its retries."""
        return self._client().predict(self.model, inputs, signature, version=version, outputs=[output], timeout=self.timeout)


@dataclasses.dataclass
class SavedModelPredictor(Predictor):
    """The version of a model in the folder `path`, whose name is the version's number."""

    path: str = ""

    def _servable(self) -> Any:
        from serving.server.loader import Loader
        from serving.server.status import as_status

        if self._opened is None:
            folder = Path(self.path)
            if not folder.name.isdecimal() or not folder.is_dir():
                raise ServingError(f"{folder} is not a numbered version's folder", "NOT_FOUND")
            try:
                self._opened = Loader(warmup=False)(self.model, int(folder.name), folder)
            except Exception as error:
                raise ServingError(f"cannot load {folder}: {error}", as_status(error).code.name) from error
        return self._opened

    def metadata(self, version: int | None) -> ModelMetadata:
        """Of the one version there is."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        from serving.messages import read_metadata

        servable = self._servable()
        if version not in (None, servable.version):
            raise ServingError(f"{self.path} is version {servable.version}, not {version}", "NOT_FOUND")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in servable.signatures.items():
            signatures.signature_def[key].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = self.model, servable.version
        response.metadata["signature_def"].Pack(signatures)
        return read_metadata(response)

    def predict(self, inputs: Mapping[str, np.ndarray], signature: str, version: int, output: str) -> Prediction:
        """One run, checked as a server would."""
        from serving.messages import predict_request, read_prediction
        from serving.server.prediction import predict
        from serving.server.status import as_status

        request = predict_request(self.model, inputs, signature, outputs=[output])
        try:
            return read_prediction(predict(self._servable(), request))
        except ServingError:
            raise
        except Exception as error:
            status = as_status(error)
            raise ServingError(status.message, status.code.name) from error
