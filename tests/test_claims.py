"""The evidence of claims is there, and the page shows it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import medsynth_tf as ms

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("slug", [info.slug for info in ms.list_methods()])
def test_every_method_has_its_claim_measured(slug):
    assert (ROOT / "benchmarks" / "claims" / f"{slug}.py").is_file()
    found = json.loads((ROOT / "benchmarks" / "claims" / "results" / f"{slug}.json").read_text())
    assert isinstance(found["claim"], str)
    assert found["holds"] is True


def test_the_page_of_claims_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "claims_table.py", "--check"], check=False)
    assert done.returncode == 0, "run python scripts/claims_table.py"
