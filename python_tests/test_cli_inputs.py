"""Files that commands read, in the place of which is something else: nothing is waited for, everything is named."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path
from typing import Any

import pytest

from focus.cli import REFUSED, main
from focus.errors import FocusError
from focus.eval.results import read_results
from focus.report.results import read_json, write_json

RESULT = {
    "method": "a",
    "seed": 0,
    "subset": "general",
    "version": 1,
    "digest": "d",
    "commit": "c",
    "names": ["x", "y"],
    "occluded": [True, False],
    "occluder": ["hand", "none"],
    "yaw": [0.0, 1.0],
    "values": {"f1": [0.5, 0.25]},
}


def put(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "bytes": bytes(range(256)), "deep": b"[" * 100_000, "nul": b"\0" * 99}[kind])


@pytest.mark.parametrize("kind", ["fifo", "endless", "folder", "missing", "empty", "bytes", "deep", "nul"])
@pytest.mark.parametrize(
    "words",
    [
        "evaluate compare {}",
        "evaluate pose {} --out out",
        "evaluate segmentation --out {}/..",
        "evaluate runs {}/..",
        "evaluate checkpoints {}",
        "evaluate misfit {} --out out",
        "evaluate predictions {} --images {} --photos . --out out",
        "fit a.png --landmarks {} --out out",
        "fit a.png --landmarks l.csv --model {} --out out",
        "reconstruct a.png --landmarks l.csv --checkpoint {} --out out",
        "prepare . --landmarks {} --out out",
        "model {}",
        "model --landmarks68 {}",
        "demo --initial {} --out out",
        "experiment ablation --initial {} --out out",
    ],
)
def test_inputs_are_named_and_not_waited_for(
    words: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "missing" and "/.." in words:
        pytest.skip("nothing there is a beginning")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / ("results.jsonl" if "segmentation" in words else "metrics.json")
    put(path, kind)
    (tmp_path / "in" / "per_image.json").write_text("{}")
    (tmp_path / "l.csv").write_text("a.png" + ",1" * 136 + "\n")
    given = [word.format(path).replace(f"{path.name}/..", "") for word in words.split()]
    assert main(["--json", *given]) == REFUSED
    streams = capsys.readouterr()
    assert path.name in json.loads(streams.out)["error"] or "landmarks68" in words
    assert "Traceback" not in streams.err
    assert not [found for found in (tmp_path / "out").rglob("*.*") if not found.name.startswith(".")]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_byte_order_marks(mark: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    line: dict[str, Any] = {**RESULT, "names": ["x\u2028", "y\x85"]}
    path.write_bytes(mark + json.dumps(line, ensure_ascii=False).encode() + b"\n")
    assert read_results(path)[0].names == ("x\u2028", "y\x85")
    assert main(["evaluate", "compare", str(path)]) == 0
    (tmp_path / "a.json").write_bytes(mark + b'{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_json_files_hold_no_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"a": float("inf"), "b": [float("nan"), 1.0]})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": None, "b": [None, 1.0]}
    for constant in ("NaN", "Infinity", "-Infinity"):
        path.write_text(f"[{constant}]")
        with pytest.raises(FocusError, match=rf"a\.json cannot be read as JSON \({constant}"):
            read_json(path)


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_outputs_take_no_place_but_that_of_a_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.focusmodel"
    put(path, kind)
    assert main(["--json", "model", "procedural-small", "--save", str(path)]) == REFUSED
    assert "is in its place" in json.loads(capsys.readouterr().out)["error"]
    assert not path.is_file()
