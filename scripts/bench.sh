#!/usr/bin/env bash
# Installs the peers into a venv of their own and measures them beside convjax: bash scripts/bench.sh --rounds=5 --jobs=5
# TORCH names the PyTorch to install, such as TORCH=torch==2.13.0; PEERS the peers to measure.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-bench
if [ ! -x "$venv/bin/python" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . keras tensorflow "${TORCH:-torch}"
exec "$venv/bin/python" scripts/bench.py --peers="${PEERS:-torch,torch-compile,keras-tensorflow,keras-jax,flax-naive}" "$@"
