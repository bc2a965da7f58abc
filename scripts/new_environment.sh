#!/usr/bin/env bash
# A fresh virtual environment with torch:  PYTHON=python3 TORCH="torch==2.13.0" bash scripts/new_environment.sh FOLDER
# Says what to do where Python is missing, too old, or (on Debian and Ubuntu) comes without venv.
set -euo pipefail
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    echo "PYTHON=$python: no such program; expected Python 3.10 or newer, for example PYTHON=python3.12" >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "PYTHON=$python is Python $version; expected 3.10 or newer, for example PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "PYTHON=$python has no venv; on Debian and Ubuntu: apt install python$version-venv" >&2
    exit 1
fi
"$python" -m venv --clear "$1"
"$1/bin/pip" install --quiet --upgrade pip
if [ -n "${TORCH:-}" ]; then
    "$1/bin/pip" install --quiet "$TORCH"
fi
