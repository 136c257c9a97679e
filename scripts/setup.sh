#!/usr/bin/env bash
# Makes .venv from requirements.lock with Python 3.10 and installs this checkout into it (editable). Does nothing when
# neither the lock, setup.py nor the Python version changed since the last time. Called by `make setup`.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(cat requirements.lock setup.py .python-version scripts/setup.sh | sha256sum | cut -d' ' -f1)
[ "$(cat .venv/.setup-stamp 2>/dev/null)" = "$wanted" ] && exit 0

say() { printf '%s\n' "$*" >&2; }

find_uv() { # prints a working uv: the user's, or one installed into .tools with whatever Python 3 is here
  # pyenv's shims print nothing useful outside the version that owns them, so a uv must answer before it is believed
  if uv --version >/dev/null 2>&1; then echo uv; return; fi
  if .tools/bin/uv --version >/dev/null 2>&1; then echo .tools/bin/uv; return; fi
  local python
  for python in python3.10 python3 python3.11 python3.12 python; do
    if "$python" -m venv .tools >/dev/null 2>&1 && .tools/bin/python -m pip install -q uv >&2; then echo .tools/bin/uv; return; fi
    rm -rf .tools
  done
  say "set-up: cannot install 'uv'. It needs any Python 3 with the venv module (Debian: apt-get install python3-venv)"
  say "        and a reachable package index, or uv itself on PATH."
  return 1
}

uv=$(find_uv)
if ! "$uv" venv -q --seed --clear --python "$(cat .python-version)" .venv; then
  say "set-up: no Python $(cat .python-version) found (TFX 1.15 needs it; 3.11 and newer cannot run TFX). Any of these gives one:"
  say "          uv python install 3.10        pyenv install 3.10        conda create -n py310 python=3.10"
  say "        then run make again, with that python3.10 on PATH."
  exit 1
fi
"$uv" pip sync -q --python .venv requirements.lock
"$uv" pip install -q --python .venv --no-deps --no-build-isolation --editable .
echo "$wanted" > .venv/.setup-stamp
say "set-up: .venv is ready ($(.venv/bin/python --version))"
