"""Which versions of a model a folder holds, and which of them its policy asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


def find_versions(base_path: str, files: Sequence[str] = SAVED_MODEL_FILES) -> dict[int, Path]:
    """The complete versions under `base_path` by number: numbered folders with one of `files`.

    Temporary and half-copied ones are passed over.

    Raises:
        OSError: `base_path` cannot be read; that says nothing about the versions, so nothing should be unloaded for it.
    """
    return {
        int(path.name): path
        for path in Path(base_path).iterdir()
        if path.name.isdecimal() and any((path / file).is_file() for file in files)
    }


def aspired(versions: dict[int, Path], policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> dict[int, Path]:
    """Those of `versions` that `policy` (latest n, all, specific; default: latest 1) wants served."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return versions
    if choice == "specific":
        return {number: versions[number] for number in policy.specific.versions if number in versions}
    count = policy.latest.num_versions or 1
    return {number: versions[number] for number in sorted(versions)[-count:]}


def stamp(path: Path) -> frozenset[tuple[str, int, int]]:
    """Names, sizes and times of a version's files: differs once someone finishes or repairs a copy."""
    found = []
    for file in path.rglob("*"):
        try:
            info = file.stat()
        except FileNotFoundError:  # removed while we look
            continue
        found.append((str(file.relative_to(path)), info.st_size, info.st_mtime_ns))
    return frozenset(found)


def flush_caches(path: Path) -> None:
    """Tells the system that the version's files are read: it may take back the memory in which it holds their pages."""
    for file in path.rglob("*"):
        if file.is_file():
            try:
                handle = os.open(file, os.O_RDONLY)
            except OSError:  # removed, or closed to us, since it was loaded: there is nothing to give back
                continue
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
