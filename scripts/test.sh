#!/usr/bin/env bash
# Makes .venv, installs, checks style and types, and runs the tests. --slow adds the long ones; other words go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh" test

arguments=()
for argument in "$@"; do
  case "$argument" in
    --slow) arguments+=(-m "slow or not slow") ;;
    *) arguments+=("$argument") ;;
  esac
done

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyrefly check --python-interpreter-path .venv/bin/python --output-format=min-text --summary=none
exec .venv/bin/python -m pytest --numprocesses=2 --dist=worksteal "${arguments[@]}"
