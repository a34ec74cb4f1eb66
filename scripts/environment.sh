# Sourced by the other scripts: makes or reuses .venv in the repository's root, and installs convjax into it.
# Usage: . scripts/environment.sh EXTRAS     (EXTRAS such as test, or empty)

cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "$(basename "$0"): needs CPython 3.11 or newer with venv; install it, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
  return 1
}

if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  python="$(find_python)"
  echo "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi

# pip takes seconds even with nothing to install: a checksum of the inputs tells whether there is something.
stamp="$(cat setup.cfg pyproject.toml | cksum | cut -d' ' -f1)-$(.venv/bin/python -c 'import sys; print(sys.version_info[:3])')"
if [ "$(cat ".venv/installed-${extras:-base}" 2>/dev/null)" != "$stamp" ]; then
  echo "installing convjax${extras:+ with its $extras extra} into .venv (a minute or two the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
  echo "$stamp" > ".venv/installed-${extras:-base}"
fi
