"""Writes a deployment's files into a folder."""

from __future__ import annotations

from pathlib import Path

import yaml

from medsynth_tf.core.files import write_text
from serving.deploy.compose import compose
from serving.deploy.configs import config_files
from serving.deploy.kubernetes import manifests
from serving.deploy.settings import Deployment

__all__ = ["Deployment", "render"]


def render(deployment: Deployment, folder: str | Path) -> list[Path]:
    """Writes `compose/` (compose.yaml and config/) and `kubernetes/` (a manifest a file, and kustomization.yaml) into `folder`.

    Start them with `docker compose -f FOLDER/compose/compose.yaml up` and `kubectl apply -k FOLDER/kubernetes`.

    Returns:
        The files, in the order of writing.
    """
    folder = Path(folder)
    texts = {f"compose/config/{name}": text for name, text in config_files(deployment).items()}
    texts["compose/compose.yaml"] = _yaml(compose(deployment))
    documents = manifests(deployment)
    texts.update({f"kubernetes/{name}": _yaml(document) for name, document in documents.items()})
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(documents),
    }
    texts["kubernetes/kustomization.yaml"] = _yaml(kustomization)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _yaml(document: dict) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such, and equal parts written out rather than by reference, for people who edit the files."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
