"""Distances of shapes within and between people, and the script that fits drawn people."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from focus.eval.identity import identity_scores, shape_distances

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "identity.py"


def test_distances_forget_size_and_pose() -> None:
    generator = torch.Generator().manual_seed(1)
    shape = 50 * torch.randn(1, 40, 3, generator=generator)
    other = shape + 3 * torch.randn(1, 40, 3, generator=generator)
    turned = 1.5 * shape @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 7
    distances = shape_distances(torch.cat([shape, turned, other]))
    assert distances.shape == (3, 3)
    np.testing.assert_allclose(distances, distances.T)
    np.testing.assert_allclose(np.diag(distances), 0, atol=1e-4)
    assert distances[0, 1] < 1e-3
    assert 3 < distances[0, 2] < 7


def test_scores_by_hand() -> None:
    """Two people from two angles each; the second one is nearer to the first than to herself from 45 degrees."""
    people, yaws = ["a", "a", "b", "b"], [0, 45, 0, -45]
    distances = np.array([[0, 1, 3, 4], [1, 0, 2, 3.5], [3, 2, 0, 5], [4, 3.5, 5, 0]])
    scores = identity_scores(distances, people, yaws)
    assert scores.within == pytest.approx((1 + 5) / 2)
    assert scores.between == pytest.approx((3 + 4 + 2 + 3.5) / 4)
    assert scores.ratio == pytest.approx(3 / 3.125)
    assert scores.nearest == pytest.approx(2 / 4)  # those of a; b at 0 sees a at 45 first, b at -45 a at 45
    assert scores.turned_to_front == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match=r"identity_scores: expected distances \[3, 3\]"):
        identity_scores(distances, people[:3], yaws[:3])
    assert np.isnan(identity_scores(distances[:1, :1], ["a"], [0]).ratio)


def test_the_script_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    specification = importlib.util.spec_from_file_location("identity_script", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "identity_script", script)
    specification.loader.exec_module(script)
    arguments = ["synthetic", "--people", "2", "--yaws", "0", "45", "--model", "small", "--size", "64"]
    result = script.main([*arguments, "--json", str(tmp_path / "table.json")])
    assert json.loads((tmp_path / "table.json").read_text()) == result
    assert result["errors"]["yaw 45"]["better"] > 0.2  # of the way from the mean face to the person
    assert result["scores"]["ratio"] < 0.8
    assert "ratio" in capsys.readouterr().out
    hidden = script.main([*arguments, "--occluded", "--drawn-with", "small"])
    assert not hidden["errors"]
    assert set(hidden["scores"]) == set(result["scores"])
    (tmp_path / "landmarks.csv").write_text("a.png," + ",".join("1" for _ in range(136)))
    with pytest.raises(SystemExit, match="at least two photos"):
        script.main(["photos", str(tmp_path), "--landmarks", str(tmp_path / "landmarks.csv")])
