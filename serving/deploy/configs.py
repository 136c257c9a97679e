"""The files that tensorflow_model_server reads, and the flags that name them."""

from __future__ import annotations

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.deploy.settings import CONFIG_PATH, GRPC_PORT, MODELS_PATH, REST_PORT, Deployment
from serving.server import metrics, protos

MODELS_FILE, BATCHING_FILE, MONITORING_FILE = "models.config", "batching.config", "monitoring.config"


def config_files(deployment: Deployment) -> dict[str, str]:
    """Text-format messages by file name."""
    files = {MODELS_FILE: _models(deployment), MONITORING_FILE: _monitoring()}
    if deployment.batching:
        files[BATCHING_FILE] = _batching(deployment)
    return files


def server_flags(deployment: Deployment) -> list[str]:
    """The command line of the server in the container."""
    flags = [
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={CONFIG_PATH}/{MODELS_FILE}",
        "--model_config_file_poll_wait_seconds=60",  # a changed list of models needs no restart
        "--file_system_poll_wait_seconds=10",
        f"--monitoring_config_file={CONFIG_PATH}/{MONITORING_FILE}",
        f"--tensorflow_session_parallelism={deployment.threads}",  # not the node's cores, which the container may not use
    ]
    if deployment.batching:
        flags += ["--enable_batching=true", f"--batching_parameters_file={CONFIG_PATH}/{BATCHING_FILE}"]
    return flags


def _models(deployment: Deployment) -> str:
    config = ModelServerConfig()
    for name in sorted(deployment.models):
        config.model_config_list.config.add(name=name, base_path=f"{MODELS_PATH}/{name}", model_platform="tensorflow")
    return text_format.MessageToString(config)


def _batching(deployment: Deployment) -> str:
    """On a GPU large batches pay; on a CPU they mostly add waiting, so they stay small and leave early."""
    parameters = protos.BatchingParameters()
    parameters.max_batch_size.value = 32 if deployment.gpus else 8
    parameters.batch_timeout_micros.value = 5000 if deployment.gpus else 1000
    parameters.max_enqueued_batches.value = 100
    parameters.num_batch_threads.value = 2 * deployment.gpus or deployment.threads
    return text_format.MessageToString(parameters)


def _monitoring() -> str:
    config = protos.MonitoringConfig()
    config.prometheus_config.enable = True
    config.prometheus_config.path = metrics.PATH
    return text_format.MessageToString(config)
