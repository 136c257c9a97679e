"""Writes docs/claims.md from the figures in benchmarks/claims/results/*.json; `--check` only says whether it is up to date.

Each file has `claim`, what was asked of every seed, `holds`, and the figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "claims" / "results", ROOT / "docs" / "claims.md"
HEAD = """# Claims, measured

Each method's paper says that something works better than something else. `benchmarks/claims/<slug>.py` asks that of the library's own
code on a phantom, in minutes on two cores, and writes its figures to `benchmarks/claims/results/<slug>.json`. This page is made from
those files by `python scripts/claims_table.py`.

| method | claim | seeds | holds |
|---|---|---|---|
"""


def page() -> str:
    """The page's text."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        runs = found.get("seeds") or found.get("runs") or found.get("translation")
        seeds = ", ".join(str(run["seed"]) for run in runs)
        holds = "yes" if found["holds"] else "**no**"
        rows.append(f"| [{path.stem}](methods/{path.stem}.md) | {found['claim']} | {seeds} | {holds} |")
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Writes or checks the page; the exit code."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.is_file() and PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
