"""The benchmarks run, and refuse to time what is wrong. No times are asserted."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from focus import ops

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/run.py as a module."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    before = set(sys.modules)
    yield importlib.import_module("run")
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_all_benchmarks_run(run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(arguments=["--quick", "--json", str(tmp_path / "table.json")])
    table = json.loads((tmp_path / "table.json").read_text())
    about = {"machine", "commit", "focus", "torch", "python", "compiler", "cuda", "threads", "avx2"}
    assert about | {"copy_gigabytes_per_second"} <= set(table)
    assert len(table["rows"]) >= 2 * len(list(FOLDER.glob("bench_*.py"))) > 0
    assert all(row["median_ms"] > 0 and row["ratio"] > 0 for row in table["rows"])
    assert all(row["released_ratio"] > 0 for row in table["rows"] if row["name"].startswith("neighbor_min_loss"))
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in table["rows"])
    wide = [row for row in table["rows"] if row["name"] == "rasterize, forward" and row["size"].startswith("12 x")]
    assert [row["ratio_size"][:4] for row in wide] == ["1 x "]  # the twin's time is that of less work, and says so


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("stage", ["about", "check", "times", "rivals"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # of torch itself, in its compiler
def test_what_a_card_is_asked(stage: str, tmp_path: Path) -> None:
    importlib.import_module("on_card").main([stage, "--device", "cpu", "--quick", "--out", str(tmp_path / "out.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines
    assert all(line.get("good", True) for line in lines)
    if stage == "times":
        assert all(line["ms"] > 0 and line["moved_bytes"] > 0 for line in lines if "moved_bytes" in line)


@pytest.mark.usefixtures("run")
def test_a_check_that_fails_is_a_line_and_ends_nothing(tmp_path: Path) -> None:
    on_card = importlib.import_module("on_card")
    report = on_card.Report(tmp_path / "out.jsonl")
    report.check("wrong", lambda: "other bits")
    report.check("broken", lambda: 1 / 0)
    report.check("right", lambda: None)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert report.failed
    assert [line["good"] for line in lines] == [False, False, True]
    assert "ZeroDivisionError" in lines[1]["wrong"]


def test_sweep_and_its_picture(run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    run.main(arguments=["--sweep", "--quick", "--json", str(tmp_path / "sweep.json")])
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert {row["axis"] for row in rows} == {"pixels", "triangles", "batch", "pixels of 2 triangles", "slivers"}
    assert "with each doubling" in capsys.readouterr().out
    plot = importlib.import_module("plot")
    plot.main([str(tmp_path / "sweep.json")] * 2 + [str(tmp_path / "images" / "cost.png")])
    assert (tmp_path / "images" / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_growth_is_that_of_a_doubling(run: ModuleType) -> None:
    rows = [
        run._harness.Measurement("work", "", "pixels", amount, 0.0, 0.0, least, 0.0, 0.0)
        for amount, least in ((10, 1.0), (20, 3.0), (80, 12.0))
    ]
    ((name, axis, factors),) = run._sweep.growth(rows)
    assert (name, axis) == ("work", "pixels")
    assert factors == pytest.approx([3.0, 2.0])


def test_the_standard_mesh(run: ModuleType) -> None:
    meshes = importlib.import_module("_meshes")
    mesh = meshes.standard(2)
    assert mesh.vertices.shape == (2, 35_709, 3)
    assert mesh.faces.shape == (70_789, 3)
    assert len(mesh.faces.unique()) == 35_709
    culls = ("clockwise", "counterclockwise")
    found = [ops.rasterize(mesh.vertices[:1], mesh.faces, (224, 224), cull=cull) for cull in culls]
    covered = found[0].face_index >= 0
    assert 0.5 < covered.float().mean() < 0.6
    both = covered & (found[1].face_index >= 0)
    assert (found[0].depth[both] <= found[1].depth[both]).float().mean() > 0.99  # the front is counterclockwise


def test_wrong_results_are_not_timed(run: ModuleType) -> None:
    value = torch.ones(3)
    case = run._harness.Case("doubling", "3", lambda: (2 * value,), lambda: (value,), (value,))
    with pytest.raises(SystemExit, match=r"doubling 3: result 0 differs from the twin's by 1\.00e\+00"):
        run.main([lambda device, quick: [case]], ["--quick"])


def test_another_bit_on_the_card_is_not_timed(run: ModuleType) -> None:
    value = torch.ones(3)
    near = value * (1 + 2**-20)
    case = run._harness.Case("copy", "3", lambda: (value,), lambda: (value,), (value,), on_cpu=lambda: (near,), exact=1)
    with pytest.raises(SystemExit, match=r"copy 3: result 0 differs from the CPU's in 3 values"):
        run.main([lambda device, quick: [case]], ["--quick"])


def test_what_a_call_costs(run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overhead = importlib.import_module("bench_overhead")
    overhead.main(["--quick", "--json", str(tmp_path / "overhead.json")])
    rows = json.loads((tmp_path / "overhead.json").read_text())["rows"]
    public = {name for name in ops.__all__ if name.islower() and name != "reference"}
    ways = {(row["name"], row["way"]) for row in rows if row["who"] == "focus"}
    assert {(name, way) for name in public for way in overhead.WAYS} <= ways
    assert {row["who"] for row in rows} >= {"focus", "torch"}
    assert all(row["microseconds"] > 0 and row["of_reference"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(name in printed for name in public)


DRTK = """
from focus import ops

def rasterize(v, vi, height, width):
    return ops.rasterize(v, vi[0], (height, width), perspective_correct=True).face_index

def render(v, vi, index_img):
    found = ops.rasterize(v, vi[0], tuple(index_img.shape[1:]), perspective_correct=True)
    return found.depth, found.barycentric.movedim(3, 1)

def interpolate(attributes, vi, index_img, bary_img):
    fragments = ops.Fragments(index_img, bary_img.movedim(1, 3), None)
    return ops.interpolate(attributes, vi[0], fragments) * {factor}

def edge_grad_estimator(v_pix, vi, bary_img, img, index_img):
    return img
"""
"""Another library that draws as ours does, in place of one that need not be installed."""


def _beside(
    source: str, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What benchmarks/peers.py finds where `source` is installed as drtk."""
    (folder / "drtk.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "drtk", raising=False)
    importlib.invalidate_caches()
    importlib.import_module("peers").main(["--quick", "--json", str(folder / "peers.json"), *arguments])
    monkeypatch.delitem(sys.modules, "drtk", raising=False)
    table: dict[str, Any] = json.loads((folder / "peers.json").read_text())
    return table


@pytest.mark.usefixtures("run")
def test_losses_beside_compiled_twins(tmp_path: Path) -> None:
    options = ["--quick", "--backend", "aot_eager", "--json", str(tmp_path / "compiled.json")]
    importlib.import_module("compiled").main(options)
    table = json.loads((tmp_path / "compiled.json").read_text())
    assert len(table["rows"]) == 6
    assert all(row["ours_ms"] > 0 and row["compiled_median"] > 0 for row in table["rows"])


@pytest.mark.usefixtures("run")
def test_libraries_that_are_not_there_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = importlib.import_module("_peers")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    importlib.import_module("peers").main(["--quick", "--json", str(tmp_path / "peers.json")])
    table = json.loads((tmp_path / "peers.json").read_text())
    nowhere = dict.fromkeys(("DRTK", "Sim3DR", "PyTorch3D"), "not installed")
    assert table["left_out"] == {**nowhere, "nvdiffrast": "runs on cuda only"}
    assert table["rows"] == table["refused"] == []
    assert "DRTK: left out: not installed" in capsys.readouterr().out


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("batch", ["1", "2"])
def test_a_library_that_agrees_is_timed(batch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = _beside(DRTK.replace("{factor}", "1"), tmp_path, monkeypatch, ("--batch", batch))
    rows = [row for row in table["rows"] if row["peer"] == "DRTK"]
    assert [row for row in table["refused"] if row["peer"] == "DRTK"] == []
    assert [row["what"] for row in rows] == [
        "mesh to image, forward",
        "mesh to image, forward + backward",
        "depth and coordinates, forward",
        "depth and coordinates, forward + backward",
        "mesh to image, outlines, forward + backward",
    ]
    assert all(row["size"].startswith(f"{batch} x ") for row in rows)
    assert all(row["ours_ms"] > 0 and row["first_quartile"] <= row["ratio"] <= row["third_quartile"] for row in rows)


@pytest.mark.usefixtures("run")
def test_a_library_that_disagrees_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = _beside(DRTK.replace("{factor}", "0.9"), tmp_path, monkeypatch)
    rows = [row["what"] for row in table["rows"] if row["peer"] == "DRTK"]
    assert rows == ["depth and coordinates, forward", "depth and coordinates, forward + backward"]
    refused = [row["why"] for row in table["refused"] if row["peer"] == "DRTK"]
    assert len(refused) == 3
    assert all(why.startswith("not the same results: ") and "of the pixels differ" in why for why in refused)
    assert "not timed: not the same results" in capsys.readouterr().out


@pytest.mark.usefixtures("run")
def test_wrong_gradients_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = DRTK.replace("* {factor}", "+ attributes.sum() - attributes.detach().sum()")
    table = _beside(wrong, tmp_path, monkeypatch)
    refused = {row["what"]: row["why"] for row in table["refused"] if row["peer"] == "DRTK"}
    assert list(refused) == ["mesh to image, forward + backward"]
    assert "gradient 1 differs by" in refused["mesh to image, forward + backward"]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "another package of this name: it has no rasterize, render, interpolate, edge_grad_estimator"),
        ("raise OSError('another ABI')", "installed, and cannot be imported (OSError: another ABI)"),
    ],
)
def test_packages_of_the_same_name_are_named(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _beside(source, tmp_path, monkeypatch)["left_out"]["DRTK"] == why


@pytest.mark.usefixtures("run")
def test_what_a_library_raises_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = DRTK.replace("{factor}", "1").replace("found.depth, found", "found.nowhere, found")
    table = _beside(broken, tmp_path, monkeypatch)
    (refused,) = (row for row in table["refused"] if row["peer"] == "DRTK")
    assert refused["what"] == "all that follows"
    assert refused["why"].startswith("AttributeError")


def test_ratios_are_taken_round_by_round(run: ModuleType) -> None:
    turns = importlib.import_module("_turns")
    assert turns.ratio([1.0, 10.0, 1.0], [2.0, 20.0, 4.0]) == (2.0, 2.0, 3.0)
    order: list[str] = []
    spent = turns.take_turns([lambda: order.append("a"), lambda: order.append("b")], turns.Plan(0.0, 0.0, 3))
    assert [len(found) for found in spent] == [3, 3]
    assert order[2:] == list("abbaab")  # after one call of each to warm up


def test_training_is_timed_for_each_kind_of_iteration(run: ModuleType, tmp_path: Path) -> None:
    training = importlib.import_module("bench_training")
    training.main(["--quick", "--json", str(tmp_path / "training.json")])
    rows = json.loads((tmp_path / "training.json").read_text())["rows"]
    (source,) = (row for row in rows if "source" in row)
    assert source["faces_a_second"] > 0
    kinds = {(row["iteration"], row["measure"]) for row in rows if "measure" in row}
    assert {measure for _, measure in kinds} >= {"channels_last", "fused optimiser", "all of the defaults"}
    assert len({iteration for iteration, _ in kinds}) == 4
    assert all(row["without_ms"] > 0 and row["with_ms"] > 0 for row in rows if "measure" in row)


def test_what_an_iteration_costs_is_counted(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = importlib.import_module("training_cost")
    counter = cost.Count(cost.Card(tflops=1e-9, share_of_tflops=0.5, terabytes_per_second=1.0, share_of_bandwidth=1.0))
    with counter:
        product = torch.ones(2, 3) @ torch.ones(3, 4)
        product.view(8).detach()  # no work
    assert counter.flops == 2 * 2 * 3 * 4
    assert counter.bytes == 4 * (6 + 6 + 12 + 12 + 8)  # `ones` fills what it makes
    assert counter.launches == 3
    assert counter.by_kind["convolutions"] == pytest.approx(48 / (1e3 * 0.5))
    cost.main(["--preset", "small", "--json", str(tmp_path / "cost.json")])
    told = json.loads((tmp_path / "cost.json").read_text())
    assert [row["iteration"] for row in told["rows"]] == [
        "initialise, reconstruction network",
        "segmentation, segmentation network",
        "joint, segmentation network",
        "joint, reconstruction network",
    ]
    assert all(row["gflop"] > 0 and 0 < row["graph_ms"] <= row["eager_ms"] for row in told["rows"])
    assert sum(row["iterations"] for row in told["rows"]) == 8450
    assert "the whole run by this model" in capsys.readouterr().out


def test_inference_is_timed_part_by_part(run: ModuleType, tmp_path: Path) -> None:
    inference = importlib.import_module("bench_inference")
    inference.main(["--quick", "--preset", "small", "--json", str(tmp_path / "inference.json")])
    rows = json.loads((tmp_path / "inference.json").read_text())["rows"]
    names = {row["part"] for row in rows}
    assert {"encoder", "segmentation", "all of it, once", "all of it, as focus reconstruct"} <= names
    assert {row["photos"] for row in rows} == {1, 2}
    assert all(row["photos_a_second"] * row["ms"] == pytest.approx(1e3 * row["photos"]) for row in rows)
