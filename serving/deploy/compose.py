"""A compose file: the official image over the models' own folders, on one machine."""

from __future__ import annotations

from typing import Any

from serving.deploy.configs import config_files, server_flags
from serving.deploy.settings import CONFIG_PATH, GRPC_PORT, MODELS_PATH, REST_PORT, USER, Deployment


def compose(deployment: Deployment) -> dict[str, Any]:
    """The document of `compose.yaml`; its configuration files stand beside it in `config/`."""
    volumes = [
        {"type": "bind", "source": str(folder.resolve()), "target": f"{MODELS_PATH}/{name}", "read_only": True}
        for name, folder in sorted(deployment.models.items())
    ]
    volumes += [
        {"type": "bind", "source": f"./config/{name}", "target": f"{CONFIG_PATH}/{name}", "read_only": True}
        for name in sorted(config_files(deployment))
    ]
    limits: dict[str, Any] = {"cpus": str(deployment.threads), "memory": deployment.memory.removesuffix("i").lower()}
    resources: dict[str, Any] = {"limits": limits}
    if deployment.gpus:
        devices = [{"driver": "nvidia", "count": deployment.gpus, "capabilities": ["gpu"]}]
        resources["reservations"] = {"devices": devices}
    listens = f"exec 3<>/dev/tcp/127.0.0.1/{REST_PORT}"  # the image has no curl; bash opens sockets itself
    service = {
        "image": deployment.image,
        "entrypoint": ["/usr/bin/tensorflow_model_server"],
        "command": server_flags(deployment),
        "user": f"{USER}:{USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],
        "ports": [f"{GRPC_PORT}:{GRPC_PORT}", f"{REST_PORT}:{REST_PORT}"],
        "volumes": volumes,
        "deploy": {"resources": resources},
        "healthcheck": {
            "test": ["CMD", "bash", "-c", listens],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "120s",
        },
        "restart": "unless-stopped",
        "stop_grace_period": "40s",
    }
    return {"name": deployment.name, "services": {"model-server": service}}
