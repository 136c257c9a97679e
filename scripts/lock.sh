#!/usr/bin/env bash
# Resolves requirements.lock for Python 3.10 on Linux, without index addresses. The GPU extra is left out: its CUDA packages are
# only wanted where there is a GPU (pip install -e '.[gpu]').
set -euo pipefail
cd "$(dirname "$0")/.."
uv=uv
"$uv" --version >/dev/null 2>&1 || uv=.tools/bin/uv
"$uv" pip compile -q setup.py --extra tfx --extra serving --extra dev --python-version "$(cat .python-version)" \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o requirements.lock
