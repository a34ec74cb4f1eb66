#!/usr/bin/env bash
# Runs the tests with the lowest versions of the dependencies that setup.cfg allows, in .venv-lowest. Words go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
stamp="$(cat setup.cfg pyproject.toml | cksum)"
if [ "$(cat .venv-lowest/installed 2>/dev/null)" != "$stamp" ]; then
  "$python" -m venv --clear .venv-lowest
  .venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
  VIRTUAL_ENV="$PWD/.venv-lowest" .venv-lowest/bin/uv pip install --quiet --resolution lowest-direct --editable '.[test]'
  echo "$stamp" > .venv-lowest/installed
fi
.venv-lowest/bin/python - <<'PROGRAM'
import configparser, importlib.metadata, re

parser = configparser.ConfigParser()
parser.read("setup.cfg")
lines = parser["options"]["install_requires"] + parser["options.extras_require"]["test"]
for line in filter(None, lines.splitlines()):
    if not line.startswith("#"):
        name = re.match(r"[\w-]+", line)[0]
        print(f"{name} {importlib.metadata.version(name)}", end="  ")
print()
PROGRAM
# Old versions warn about what newer versions of their own dependencies deprecate: that must not fail our tests.
exec .venv-lowest/bin/python -m pytest -q --override-ini=filterwarnings=default --numprocesses=2 --dist=loadfile "$@"
