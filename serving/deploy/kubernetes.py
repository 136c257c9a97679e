"""Kubernetes manifests: ConfigMap, Deployment, Service, HorizontalPodAutoscaler, PodDisruptionBudget, NetworkPolicy."""

from __future__ import annotations

import hashlib
from typing import Any

from serving.deploy.configs import config_files, server_flags
from serving.deploy.settings import CONFIG_PATH, GRPC_PORT, MODELS_PATH, REST_PORT, USER, Deployment
from serving.server import metrics

Manifest = dict[str, Any]


def manifests(deployment: Deployment) -> dict[str, Manifest]:
    """Each manifest by the name of its file."""
    return {
        "configmap.yaml": _config_map(deployment),
        "deployment.yaml": _deployment(deployment),
        "service.yaml": _service(deployment),
        "hpa.yaml": _autoscaler(deployment),
        "pdb.yaml": _disruption_budget(deployment),
        "networkpolicy.yaml": _network_policy(deployment),
    }


def _labels(deployment: Deployment) -> dict[str, str]:
    return {"app.kubernetes.io/name": deployment.name, "app.kubernetes.io/component": "model-server"}


def _named(kind: str, version: str, deployment: Deployment, **content: Any) -> Manifest:
    metadata = {"name": deployment.name, "labels": _labels(deployment)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


def _config_map(deployment: Deployment) -> Manifest:
    return _named("ConfigMap", "v1", deployment, data=config_files(deployment))


def _deployment(deployment: Deployment) -> Manifest:
    files = config_files(deployment)
    digest = hashlib.sha256("\0".join(f"{name}\0{files[name]}" for name in sorted(files)).encode()).hexdigest()
    annotations = {
        "medsynth/config-sha256": digest,  # other files, other pods: a rollout
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(REST_PORT),
        "prometheus.io/path": metrics.PATH,
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(deployment)},
            }
        ],
        "containers": [_container(deployment)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": deployment.claim, "readOnly": True}},
            {"name": "config", "configMap": {"name": deployment.name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    return _named(
        "Deployment",
        "apps/v1",
        deployment,
        spec={  # no replicas: they are the autoscaler's
            "selector": {"matchLabels": _labels(deployment)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": _labels(deployment), "annotations": annotations}, "spec": pod},
        },
    )


def _container(deployment: Deployment) -> Manifest:
    limits = {"cpu": deployment.cpu, "memory": deployment.memory}
    if deployment.gpus:
        limits["nvidia.com/gpu"] = str(deployment.gpus)
    first = sorted(deployment.models)[0]
    answers = {
        "httpGet": {"path": f"/v1/models/{first}", "port": "rest"}
    }  # TensorFlow Serving listens once all models are loaded
    return {
        "name": "model-server",
        "image": deployment.image,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": server_flags(deployment),
        "ports": [{"name": "grpc", "containerPort": GRPC_PORT}, {"name": "rest", "containerPort": REST_PORT}],
        "resources": {"requests": dict(limits), "limits": limits},
        "startupProbe": {**answers, "periodSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {**answers, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 20, "timeoutSeconds": 5},
        # the server stops at once on SIGTERM: time for the endpoint to vanish, and for what runs to finish
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "30"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS_PATH, "readOnly": True},
            {"name": "config", "mountPath": CONFIG_PATH, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _service(deployment: Deployment) -> Manifest:
    ports = [
        {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
        {"name": "rest", "port": REST_PORT, "targetPort": "rest"},
    ]
    return _named("Service", "v1", deployment, spec={"type": "ClusterIP", "selector": _labels(deployment), "ports": ports})


def _autoscaler(deployment: Deployment) -> Manifest:
    return _named(
        "HorizontalPodAutoscaler",
        "autoscaling/v2",
        deployment,
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name},
            "minReplicas": deployment.replicas,
            "maxReplicas": deployment.most_replicas,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
            ],
        },
    )


def _disruption_budget(deployment: Deployment) -> Manifest:
    """One at a time; also with one replica, where `minAvailable` would block every drain of a node."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _labels(deployment)}}
    return _named("PodDisruptionBudget", "policy/v1", deployment, spec=spec)


def _network_policy(deployment: Deployment) -> Manifest:
    """In: the two ports. Out: nothing, since a model server asks nobody."""
    ports = [{"protocol": "TCP", "port": port} for port in (GRPC_PORT, REST_PORT)]
    return _named(
        "NetworkPolicy",
        "networking.k8s.io/v1",
        deployment,
        spec={
            "podSelector": {"matchLabels": _labels(deployment)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": ports}],
            "egress": [],
        },
    )
