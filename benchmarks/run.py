"""Runs every benchmark of this folder: `python benchmarks/run.py [--device cuda] [--threads N] [--json FILE]`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import _harness  # noqa: E402


def load_cases() -> list[_harness.Cases]:
    """The `cases` function of each bench_*.py."""
    found: list[_harness.Cases] = []
    for path in sorted(FOLDER.glob("bench_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(module.cases)
    return found


if __name__ == "__main__":
    _harness.main(load_cases())
