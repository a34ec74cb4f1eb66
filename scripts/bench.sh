#!/usr/bin/env bash
# Makes a venv of its own with the peers and measures them beside convjax: bash scripts/bench.sh --rounds=5 --jobs=5
# TORCH says which PyTorch to install, such as TORCH=torch==2.13.0; PEERS which peers to measure.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-bench
if [ ! -x "$venv/bin/python" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . keras tensorflow "${TORCH:-torch}"
exec "$venv/bin/python" scripts/bench.py --peers="${PEERS:-torch,torch-compile,keras-tensorflow,keras-jax,flax-naive}" "$@"
