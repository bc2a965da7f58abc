"""The short form of `fuzz/fuzz_files.py`: some hundred mutated files for every reader."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "fuzz" / "fuzz_files.py"

_spec = importlib.util.spec_from_file_location("fuzz_files", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
fuzz_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz_files)


def _run(*arguments: str, folder: Path, program: Path = PROGRAM) -> subprocess.CompletedProcess[str]:
    # It forks, which the threads of a test run should not be part of.
    return subprocess.run(
        [sys.executable, str(program), *arguments, "--keep", str(folder / "found")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_mutated_files_end_in_results_or_in_plain_errors(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("scipy")
    result = _run(folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(fuzz_files.READERS)
    assert all(", 0 findings" in line and ", 0 refused" not in line for line in lines), result.stdout
    assert not (tmp_path / "found").exists()


def test_crashes_and_foreign_errors_are_found(tmp_path: Path) -> None:
    """Or the other test would say nothing."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys; sys.path.insert(0, {str(PROGRAM.parent)!r})
import ctypes, os, time, fuzz_files
from fuzz_files import FocusError, Reader, main

def read(path):
    data = path.read_bytes()
    if data == b"valid" * 100: return
    kind = data[0] % 4 if data else 0
    if kind == 0: raise FocusError("refused")
    if kind == 1: raise KeyError("foreign")
    if kind == 2: ctypes.string_at(0)
    if kind == 3: time.sleep(9)

fuzz_files.SECONDS_PER_INPUT = 1
fuzz_files.mutate = lambda data, source: bytes([source.randrange(4)])
fuzz_files.READERS = {{"all": Reader(lambda: b"valid" * 100, ".x", read)}}
sys.exit(main())
"""
    )
    result = _run("--inputs", "12", folder=tmp_path, program=program)
    assert result.returncode == 1, result.stderr
    for word in ("KeyError: 'foreign'", "ended by SIGSEGV", "no answer in 1 s", "findings"):
        assert word in result.stdout, result.stdout
    kept = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert len(kept) == 2 * int(result.stdout.rsplit(",", 1)[1].split()[0])


def test_the_same_seed_is_the_same_input() -> None:
    data = bytes(range(256)) * 4
    mutated = [fuzz_files.mutate(data, fuzz_files.random.Random(f"1 {i}")) for i in range(200)]
    assert mutated == [fuzz_files.mutate(data, fuzz_files.random.Random(f"1 {i}")) for i in range(200)]
    assert len(set(mutated)) > 190
    assert data not in mutated[:5]
