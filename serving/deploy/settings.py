"""What a deployment is made from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from medsynth_tf.core.errors import ConfigError, ExportError
from serving.server.storage import find_versions

IMAGE = "tensorflow/serving:2.15.1"
GRPC_PORT, REST_PORT = 8500, 8501
MODELS_PATH, CONFIG_PATH = "/models", "/config"  # in the container
USER = 10001  # nobody that exists: not root, and not a user of the host
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?")


@dataclasses.dataclass(frozen=True)
class Deployment:
    """How exported models are to run.

    Attributes:
        models: name → folder with its numbered versions, as `medsynth export` writes them.
        name: of all that is created; a DNS label.
        gpus: of a replica; 0: on CPU, with the image for it.
        cpu, memory: of a replica, as Kubernetes writes quantities.
        replicas, most_replicas: at least and at most; between them by load.
        claim: the PersistentVolumeClaim (Kubernetes) that holds the models, a folder for each.
        batching: run requests that come at the same time together.
    """

    models: Mapping[str, Path]
    name: str = "medsynth-serving"
    gpus: int = 0
    cpu: str = "4"
    memory: str = "8Gi"
    replicas: int = 2
    most_replicas: int = 8
    claim: str = "medsynth-models"
    batching: bool = True

    def __post_init__(self) -> None:
        """Checks all of it.

        Raises:
            ConfigError: a name, number or quantity is not allowed. ExportError: a folder holds no version that can be served.
        """
        for field in ("name", "claim"):
            if not _DNS_LABEL.fullmatch(getattr(self, field)):
                raise ConfigError(f"{field} '{getattr(self, field)}': expected lower-case letters, digits and '-', at most 52")
        for field in ("cpu", "memory"):
            if not _QUANTITY.fullmatch(getattr(self, field)):
                raise ConfigError(f"{field} '{getattr(self, field)}': expected a quantity such as 500m, 4 or 8Gi")
        if self.gpus < 0 or not 1 <= self.replicas <= self.most_replicas:
            raise ConfigError(
                f"gpus = {self.gpus}, replicas = {self.replicas}, most_replicas = {self.most_replicas}: expected gpus >= 0 and "
                "1 <= replicas <= most_replicas"
            )
        if not self.models:
            raise ConfigError("no models to deploy: give NAME=FOLDER for each")
        for model, folder in self.models.items():
            if not _MODEL_NAME.fullmatch(model):
                raise ConfigError(f"model name '{model}': expected letters, digits, '.', '_' and '-'")
            try:
                versions = find_versions(str(folder))
            except OSError as error:
                raise ExportError(f"model '{model}': cannot read {folder}: {error.strerror}") from error
            if not versions:
                raise ExportError(f"model '{model}': {folder} holds no numbered version with a saved_model.pb")

    @property
    def image(self) -> str:
        """TensorFlow Serving's own, for CPU or GPU."""
        return IMAGE + ("-gpu" if self.gpus else "")

    @property
    def threads(self) -> int:
        """Whole cores of a replica, at least one."""
        cores = float(self.cpu[:-1]) / 1000 if self.cpu.endswith("m") else float(re.sub(r"[^0-9.]", "", self.cpu))
        return max(1, int(cores))
