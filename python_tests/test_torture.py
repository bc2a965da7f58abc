"""The short form of `make torture`: each kind of fault at least once, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["kills", "disk", "flips"])
def test_what_docs_reliability_promises_holds(stage: str, tmp_path: Path) -> None:
    program, out = str(ROOT / "fuzz" / "torture.py"), tmp_path / "outcomes.json"
    command = [sys.executable, program, "--minutes", "0.05", "--seed", "3", "--only", stage, "--out", str(out)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    outcomes = json.loads(out.read_text())
    assert outcomes
    assert all(
        outcome["tried"] > 0 and not outcome["wrong"] for outcome in outcomes if "SIGTERM" not in outcome["kind"]
    )
