"""The model card of an export: what was exported, from what, with which versions, and a fingerprint of every file."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsynth_tf.core.errors import ExportError, UnknownNameError
from medsynth_tf.core.files import write_text
from medsynth_tf.core.registry import method_info

CARD_FILE = "model_card.json"


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What stands in `model_card.json` beside an exported model.

    `signatures` maps name → {"inputs" | "outputs": {tensor name: {"dtype": str, "shape": [int | None, ...]}}};
    `files` maps each file of the export but the card, by its path with forward slashes, to its SHA-256.
    """

    name: str
    method: str
    title: str
    reference: str
    config: Mapping[str, Any]
    data_fingerprint: str | None
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    created: str
    signatures: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def read(cls, folder: str | Path) -> ModelCard | None:
        """The card in `folder`; None if there is none (any SavedModel can be served, a card is not required).

        Raises:
            ExportError: the card is unreadable or not a card.
        """
        path = Path(folder) / CARD_FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ExportError(f"{path} is not a model card: {error}") from error

    def write(self, folder: str | Path) -> None:
        """Writes the card into `folder`."""
        write_text(Path(folder) / CARD_FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def verify(self, folder: str | Path) -> None:
        """Checks that every file of the card is in `folder` with the bytes it was exported with, and that none was added.

        Raises:
            ExportError: a file is missing, altered, or not in the card; the message names it.
        """
        found = fingerprints(folder)
        for file, digest in self.files.items():
            if file not in found:
                raise ExportError(f"{folder}: {file} is missing, but stands in {CARD_FILE}")
            if found[file] != digest:
                raise ExportError(
                    f"{folder}: {file} was altered: SHA-256 is {found[file][:12]}…, {CARD_FILE} says {digest[:12]}…"
                )
        for file in found:
            if file not in self.files:
                raise ExportError(f"{folder}: {file} does not stand in {CARD_FILE}")


def fingerprints(folder: str | Path) -> dict[str, str]:
    """SHA-256 of each file under `folder` but the card, by relative path."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CARD_FILE)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def method_text(slug: str) -> tuple[str, str]:
    """Title and reference of a method; empty for a model of the user's own, which is in no registry."""
    try:
        info = method_info(slug)
    except UnknownNameError:
        return "", ""
    return info.title, info.reference


def utc_now() -> str:
    """The time now as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
