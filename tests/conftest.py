"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images: `$MEDSYNTH_DATA`, or `../shared/data` beside the project."""
    folder = Path(os.environ.get("MEDSYNTH_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set MEDSYNTH_DATA to the folder that holds them")
    return folder
