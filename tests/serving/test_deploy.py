"""Rendered deployments: valid against Kubernetes' own types, safe by the letter, and understood by a server."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from medsynth_tf.core.errors import ConfigError, ExportError
from serving.client import Client
from serving.deploy import Deployment, render
from serving.server.flags import batching_options, metrics_path, parse
from tests.serving.conftest import free_port, local_server

kubernetes = pytest.importorskip("kubernetes.client")

KINDS = {
    "ConfigMap": ("v1", "V1ConfigMap"),
    "Deployment": ("apps/v1", "V1Deployment"),
    "Service": ("v1", "V1Service"),
    # the client of the lock knows these two by the names they had before they were final; the fields are the same
    "HorizontalPodAutoscaler": ("autoscaling/v2", "V2beta2HorizontalPodAutoscaler"),
    "PodDisruptionBudget": ("policy/v1", "V1beta1PodDisruptionBudget"),
    "NetworkPolicy": ("networking.k8s.io/v1", "V1NetworkPolicy"),
}
NEWER_FIELDS = {"V1PodSecurityContext": {"seccompProfile"}, "V1ServicePort": {"appProtocol"}}


@pytest.fixture
def rendered(served_folder, tmp_path):
    render(Deployment({"tiny": served_folder, "second": served_folder}), tmp_path)
    return tmp_path


def _conforms(value, kind, where):
    """Checks a document against the client's types: no unknown field, each of its type, none that is required missing."""
    if kind in ("str", "int", "float", "bool", "object", "datetime"):
        allowed = {"str": str, "int": int, "float": (int, float), "bool": bool, "datetime": datetime.datetime}.get(
            kind, (str, int, dict)
        )
        assert isinstance(value, allowed), f"{where} = {value!r} is no {kind}"
    elif match := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), f"{where} is no list"
        for index, item in enumerate(value):
            _conforms(item, match[1], f"{where}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        assert isinstance(value, dict), f"{where} is no mapping"
        for key, item in value.items():
            _conforms(item, match[1], f"{where}.{key}")
    else:
        model = getattr(kubernetes, kind)
        fields = {json_name: name for name, json_name in model.attribute_map.items()}
        assert isinstance(value, dict), f"{where} is no {kind}"
        known = {key: item for key, item in value.items() if key not in NEWER_FIELDS.get(kind, ())}
        for key, item in known.items():
            assert key in fields, f"{where}: {kind} has no field {key}"
            _conforms(item, model.openapi_types[fields[key]], f"{where}.{key}")
        model(**{fields[key]: item for key, item in known.items()})  # raises ValueError if a required field is missing


@pytest.mark.parametrize("gpus", [0, 2])
def test_manifests_conform_to_kubernetes(served_folder, tmp_path, gpus):
    files = render(Deployment({"tiny": served_folder}, gpus=gpus), tmp_path)
    found = set()
    for file in files:
        if file.parent.name != "kubernetes" or file.name == "kustomization.yaml":
            continue
        document = yaml.safe_load(file.read_text())
        version, kind = KINDS[document["kind"]]
        assert document["apiVersion"] == version
        _conforms(document, kind, document["kind"])
        found.add(document["kind"])
    assert found == set(KINDS)
    listed = yaml.safe_load((tmp_path / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert all((tmp_path / "kubernetes" / name).is_file() for name in listed)


def test_the_check_itself_finds_faults():
    good = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}]}}
    _conforms(good, "V1Service", "good")
    for spec in ({"ports": [{}]}, {"ports": [{"port": "1"}]}, {"ports": {"port": 1}}, {"prots": []}):
        with pytest.raises((AssertionError, ValueError)):
            _conforms({**good, "spec": spec}, "V1Service", "bad")


def test_pods_run_without_rights(rendered):
    pod = yaml.safe_load((rendered / "kubernetes" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"cpu": "4", "memory": "8Gi"}
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert pod["terminationGracePeriodSeconds"] > int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_images_and_labels(served_folder, rendered, tmp_path):
    def image(folder):
        deployment = yaml.safe_load((folder / "kubernetes" / "deployment.yaml").read_text())
        return deployment["spec"]["template"]["spec"]["containers"][0]

    assert image(rendered)["image"] == "tensorflow/serving:2.15.1"
    render(Deployment({"tiny": served_folder}, gpus=1), tmp_path / "gpu")
    assert image(tmp_path / "gpu")["image"] == "tensorflow/serving:2.15.1-gpu"
    assert image(tmp_path / "gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    documents = [yaml.safe_load(file.read_text()) for file in (rendered / "kubernetes").glob("*.yaml")]
    labels = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]["metadata"]["labels"]
    for document in documents:
        selector = document.get("spec", {}).get("selector", document.get("spec", {}).get("podSelector"))
        if selector is not None:
            assert selector.get("matchLabels", selector) == labels


def test_a_server_takes_the_rendered_flags_and_files(rendered, served_folder):
    """The embedded server refuses flags and fields it does not know; only the paths in the container are put right."""
    compose = yaml.safe_load((rendered / "compose" / "compose.yaml").read_text())
    service = compose["services"]["model-server"]
    for volume in service["volumes"]:
        assert (rendered / "compose" / volume["source"]).exists()
        assert volume["read_only"] is True
    paths = {volume["target"]: str((rendered / "compose" / volume["source"]).resolve()) for volume in service["volumes"]}
    flags = [re.sub(r"(?<==)/config/.*", lambda match: paths[match[0]], flag) for flag in service["command"]]
    file = rendered / "compose" / "config" / "models.config"
    file.write_text(re.sub(r'"(/models/[^"]*)"', lambda match: f'"{paths[match[1]]}"', file.read_text()))
    parsed = parse(flags)
    assert batching_options(parsed).num_batch_threads == 4
    assert metrics_path(parsed) == "/monitoring/prometheus/metrics"
    ports = [f"--port={free_port()}", f"--rest_api_port={free_port()}"]
    with local_server(*flags, *ports) as server, Client(server.address) as client:
        inputs = {"label_map": np.zeros((1, 8, 8), np.uint8), "seed": np.array([1])}
        assert client.predict("second", inputs).version == 1
    manifest = yaml.safe_load((rendered / "kubernetes" / "deployment.yaml").read_text())
    assert manifest["spec"]["template"]["spec"]["containers"][0]["args"] == service["command"]


def test_compose_runs_without_rights(rendered):
    document = yaml.safe_load((rendered / "compose" / "compose.yaml").read_text())
    service = document["services"]["model-server"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service["user"].startswith("0")
    assert service["deploy"]["resources"]["limits"] == {"cpus": "4", "memory": "8g"}


def test_docker_accepts_the_compose_file(rendered):
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not here")
    command = ["docker", "compose", "-f", str(rendered / "compose" / "compose.yaml"), "config", "--quiet"]
    subprocess.run(command, check=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": {}}, ConfigError, "no models to deploy"),
        ({"models": {"../x": Path(".")}}, ConfigError, "model name '../x'"),
        ({"models": {"x": Path("missing")}}, ExportError, "cannot read missing"),
        ({"models": {"x": Path("docs")}}, ExportError, "holds no numbered version"),
        ({"name": "Upper"}, ConfigError, "name 'Upper'"),
        ({"memory": "a lot"}, ConfigError, "memory 'a lot'"),
        ({"replicas": 9}, ConfigError, "1 <= replicas <= most_replicas"),
        ({"gpus": -1}, ConfigError, "gpus >= 0"),
    ],
)
def test_what_cannot_be_deployed(served_folder, changes, error, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(error, match=re.escape(message)):
        Deployment(**{"models": {"tiny": served_folder}, **changes})
