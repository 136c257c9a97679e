#!/usr/bin/env bash
# Makes .bench-venv (Python 3.11, PyTorch) for the benchmarks that compare with a PyTorch twin. Never a dependency of the project.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .bench-venv/bin/python ] && .bench-venv/bin/python -c 'import torch' 2>/dev/null && exit 0
python=
for candidate in python3.11 "$HOME"/.pyenv/versions/3.11*/bin/python; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  echo "bench-env: needs Python 3.11 (uv python install 3.11, or pyenv install 3.11)" >&2
  exit 1
fi
"$python" -m venv .bench-venv
.bench-venv/bin/python -m pip install -q torch==2.13.0 numpy
