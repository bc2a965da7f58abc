"""The benchmarks run, and refuse to time what is wrong. No times are asserted."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/run.py as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_benchmarks_run(run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run._harness.main(run.load_cases(), ["--quick", "--json", str(tmp_path / "table.json")])
    table = json.loads((tmp_path / "table.json").read_text())
    assert {"machine", "commit", "torch", "threads", "copy_gigabytes_per_second"} <= set(table)
    assert len(table["rows"]) >= len(list(FOLDER.glob("bench_*.py"))) > 0
    assert all(row["median_ms"] > 0 and row["ratio"] > 0 for row in table["rows"])
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in table["rows"])


def test_wrong_results_are_not_timed(run: ModuleType) -> None:
    value = torch.ones(3)
    case = run._harness.Case("doubling", "3", lambda: (2 * value,), lambda: (value,), (value,))
    with pytest.raises(SystemExit, match=r"doubling 3: result 0 differs from the twin's by 1\.00e\+00"):
        run._harness.main([lambda device, quick: [case]], ["--quick"])
