#!/usr/bin/env bash
# From nothing to the chapter's test accuracy: makes .venv, installs, trains the convnet on MNIST, prints the table.
# Flags are passed on to the training: bash scripts/quickstart.sh --seed=1
set -euo pipefail
. "$(dirname "$0")/environment.sh" ""

for argument in "$@"; do
  case "$argument" in
    --dataset*) exec .venv/bin/python -m experiments.train "$@" ;;
  esac
done

if .venv/bin/python scripts/fetch_data.py --dataset=mnist; then
  exec .venv/bin/python -m experiments.train "$@"
fi
echo
echo "No source could provide the full MNIST (see above): training on the embedded mnist_5k instead, 4,000 images."
.venv/bin/python -m experiments.train --dataset=mnist_5k "$@"
echo "This is the accuracy on mnist_5k (1,000 test images), NOT on the full MNIST."
