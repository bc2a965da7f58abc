#!/usr/bin/env bash
# Whether everything works from a copy of the files without git's folder, as an unpacked ZIP is, and from the source distribution made there:
#   bash scripts/try_archive.sh FOLDER-OF-THE-ENVIRONMENT      (that of `make test`, whose wheel it compares with)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tools=$(cd "$1" && pwd)/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/archive" "$work/dist"

cd "$root"
if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf "$work/archive.tar"
else
    tar --exclude=./build --exclude=./.venv --exclude=./out -cf "$work/archive.tar" .
fi
tar -xf "$work/archive.tar" -C "$work/archive"

cd "$work/archive"
MYPY_CACHE_DIR=$root/.mypy_cache timeout 300 make check TOOLS="$tools" </dev/null
"$tools/python" -c 'import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])' "$work/dist"
tar -xf "$work"/dist/*.tar.gz -C "$work/dist"

cd "$work"/dist/focus_face-*/
FOCUS_CUDA=OFF make wheel PYTHON="$tools/python" </dev/null
list() { "$tools/python" -m zipfile --list "$1" | awk 'NR > 1 {print $1}' | sort; }
diff <(list "$root"/build/wheel/*.whl) <(list build/wheel/*.whl)
"$tools/pytest" -m "not slow" python_tests/test_layout.py python_tests/test_packaging.py python_tests/test_readme.py
