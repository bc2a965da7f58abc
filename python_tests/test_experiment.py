"""Experiments: recipes, runs that are kept, and what the reports say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from focus import parallel
from focus.cli import main
from focus.errors import FocusError
from focus.eval.results import Result, read_results
from focus.experiment import RECIPES, ExperimentSettings, run_experiment, title_of
from focus.experiment.recipes import ABLATION, TABLE2
from focus.experiment.runs import TestSettings, run_of
from focus.losses import SegmentationWeights
from focus.report.experiment import ETAS, Examples, Pipelines, Seen, Sweep, pipelines_report, sweep_report
from focus.train import Settings, Trainer, load_checkpoint

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

QUICK = {"schedule": "small", "scale": 0.0005, "seeds": (0,), "test": TestSettings(faces=2, misfit_faces=2)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment with one run."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        _here(patch)
        run(folder, recipes=("Pretrained",))
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs run in this process, without new interpreters, on few faces; the names of those that were run."""
    return _here(monkeypatch)


def _here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []

    def run_jobs(jobs: Sequence[parallel.Job], *, failures: dict[str, str] | None = None, **_: Any) -> dict[str, Any]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        done.extend(job.name for job in jobs)
        results = {}
        try:
            for job in jobs:
                try:
                    results[job.name] = job.function(lambda value: None, **job.arguments)
                except FocusError as error:
                    if failures is None:
                        raise
                    failures[job.name] = str(error)
        finally:
            torch.set_num_threads(threads)
        return results

    monkeypatch.setattr(parallel, "run_jobs", run_jobs)
    small = Settings.preset("small")
    few = replace(small, data=replace(small.data, validation=2))
    monkeypatch.setattr(Settings, "preset", classmethod(lambda cls, name: few))
    return done


def run(out: Path, name: str = "ablation", **changes: Any) -> Any:
    settings = ExperimentSettings(**{"name": name, "out": out, **QUICK, **changes})
    return run_experiment(settings, progress=lambda *_: None, message=lambda _: None)


def test_recipes_are_those_of_the_paper() -> None:
    base = Settings.preset("paper")
    weights = {name: RECIPES[name].settings(base).segmentation_weights for name in ABLATION}
    full = SegmentationWeights()
    assert weights["FOCUS"] == weights["Pretrained"] == full
    assert weights["Baseline"] == replace(full, neighbor_window=1, distance=0.0, preserve=0.0)
    assert weights["Neighbour"] == replace(full, distance=0.0, preserve=0.0)
    assert weights["Perceptual"] == replace(full, neighbor_window=1)
    methods = {name: recipe.settings(base).method for name, recipe in RECIPES.items()}
    assert methods["Deep3D"] == "skin"
    assert methods["Backbone-Supervised"] == "supervised"
    assert sorted(TABLE2) == sorted(RECIPES)
    for name, recipe in RECIPES.items():
        assert title_of(recipe.settings(base)) == name
        rest = replace(recipe.settings(base), method=base.method, segmentation_weights=base.segmentation_weights)
        assert rest == base, "a recipe changes nothing else"


def test_titles_of_runs_with_weights_of_their_own() -> None:
    weights = replace(SegmentationWeights(), distance=0.0, preserve=0.1, area=9.0)
    assert title_of(replace(Settings(), segmentation_weights=weights)) == "FOCUS"
    assert title_of(replace(Settings(), method="mofa", segmentation_weights=replace(weights, preserve=0.0))) == "MoFA"


def test_a_run_is_named_after_what_it_computes(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"weights")
    settings = replace(Settings.preset("small"), start=start)
    first = run_of("FOCUS", settings, tmp_path).folder
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(b"weights")
    same = replace(settings, start=moved, device="cuda", threads=3, log=replace(settings.log, every=1))
    assert run_of("standard", same, tmp_path).folder == first
    others = [
        replace(settings, seed=1),
        replace(settings, method="mofa"),
        settings.scaled(0.5),
        replace(settings, segmentation_weights=replace(settings.segmentation_weights, area=0.7)),
    ]
    moved.write_bytes(b"other weights")
    folders = {run_of("FOCUS", other, tmp_path).folder for other in [*others, same]}
    assert len(folders) == 5
    assert first not in folders
    with pytest.raises(FocusError, match="none: no such file"):
        run_of("FOCUS", replace(settings, start=tmp_path / "none"), tmp_path)


def test_runs_are_kept_and_resumed(tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, recipes=("Pretrained", "FOCUS"))
    assert here == ["FOCUS, seed 0", "Pretrained, seed 0"]
    assert not first.failed
    ends = (".md", "-masks.png", "-faces.png", ".json", ".jsonl")
    assert [path.name for path in first.written] == [f"ablation-x0.0005{end}" for end in ends]
    details = json.loads((tmp_path / "ablation-x0.0005.json").read_text())
    assert list(details["methods"]) == ["Pretrained", "Pretrained-MP", "FOCUS", "FOCUS-MP"]
    assert {r.method for r in read_results(tmp_path / "ablation-x0.0005.jsonl")} == set(details["methods"])
    plain, prior = (details["methods"][name]["occluded"] for name in ("FOCUS", "FOCUS-MP"))
    assert plain["f1"] == prior["f1"]  # the prior moves shapes and nothing else
    assert plain["shape_error_mm"] != prior["shape_error_mm"]

    with monkeypatch.context() as patch:
        patch.setattr("focus.experiment.runs.train_run", None)
        patch.setattr("focus.experiment.runs._score", None)
        again = run(tmp_path, recipes=("Pretrained", "FOCUS"))  # nothing is trained or scored twice
    assert {**again.details, "minutes": 0} == {**first.details, "minutes": 0}

    with monkeypatch.context() as patch:  # another subset is another report, of the same networks
        patch.setattr("focus.experiment.runs.train_run", None)
        light = run(tmp_path, recipes=("FOCUS",), test=TestSettings("extreme_light", faces=2, misfit_faces=2))
        run(tmp_path, recipes=("FOCUS",), test=TestSettings(faces=2, misfit_faces=3))
        third = run(tmp_path, recipes=("Pretrained", "FOCUS"))  # another prior has not taken the place of this one
    assert light.written[0].name == "ablation-extreme_light-x0.0005.md"
    assert {**third.details, "minutes": 0} == {**first.details, "minutes": 0}


def test_a_run_that_was_cut_off_goes_on_to_the_bit(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = run(tmp_path / "whole", recipes=("FOCUS",)), tmp_path / "cut"
    learn = Trainer._iterate
    with monkeypatch.context() as patch:

        def die(trainer: Trainer, turn: Any, batch: Any) -> None:
            if trainer.step == trainer.plan[1].end:
                raise KeyboardInterrupt
            learn(trainer, turn, batch)

        patch.setattr(Trainer, "_iterate", die)
        with pytest.raises(KeyboardInterrupt):
            run(cut, recipes=("FOCUS",))
    (half,) = (cut / "runs").iterdir()
    (full,) = (tmp_path / "whole" / "runs").iterdir()
    assert half.name == full.name
    assert not (half / "done.json").exists()
    before = load_checkpoint(half / "last.safetensors").header.step
    resumed = run(cut, recipes=("FOCUS",))
    assert 0 < before < load_checkpoint(half / "last.safetensors").header.step
    assert (half / "last.safetensors").read_bytes() == (full / "last.safetensors").read_bytes()
    assert resumed.details["methods"] == whole.details["methods"]


@pytest.mark.parametrize("pattern", ["done.json", "scores-*.json", "scores-*.jsonl"])
@pytest.mark.parametrize("content", ["", '{"metrics": null, "digest": 1}'])
def test_damaged_files_of_a_run_are_made_anew(
    kept: Path, tmp_path: Path, here: list[str], pattern: str, content: str
) -> None:
    shutil.copytree(kept, tmp_path / "out")
    (path,) = (tmp_path / "out" / "runs").glob(f"*/{pattern}")
    path.write_text(content)
    result = run(tmp_path / "out", recipes=("Pretrained",))
    assert not result.failed
    assert result.details["methods"] == json.loads((kept / "ablation-x0.0005.json").read_text())["methods"]
    assert len(path.read_text()) > 100


def test_networks_that_are_damaged_are_named(kept: Path, tmp_path: Path, here: list[str]) -> None:
    shutil.copytree(kept, tmp_path / "out")
    (path,) = (tmp_path / "out" / "runs").glob("*/last.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FocusError, match=r"last.safetensors.* Delete .*runs/pretrained-.*, and it is trained again"):
        run(tmp_path / "out", recipes=("Pretrained",))
    path.unlink()  # as if the run had not come to its end
    assert not run(tmp_path / "out", recipes=("Pretrained",)).failed
    assert path.exists()
    shutil.rmtree(path.parent)
    assert not run(tmp_path / "out", recipes=("Pretrained",)).failed


def test_one_experiment_at_a_time_in_a_folder(tmp_path: Path, here: list[str]) -> None:
    program = """
        import fcntl, sys
        file = open(sys.argv[1], "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        print("held", flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FocusError, match="another experiment is at work here"):
            run(tmp_path)
        other.kill()
    assert not here
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FocusError, match="is there, and no folder"):
        run(file)


def test_a_failed_run_is_left_out_and_named(tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from focus.experiment import runs

    train = runs.train_run

    def fail(report: Any, settings: Settings, folder: Path) -> None:
        if settings.method == "focus":
            raise FocusError("training stopped after iteration 3: a weight is not finite")
        train(report, settings, folder)

    monkeypatch.setattr(runs, "train_run", fail)
    result = run(tmp_path, recipes=("Pretrained", "FOCUS"))
    assert [(skip.name, skip.reason) for skip in result.failed] == [
        ("FOCUS, seed 0", "training stopped after iteration 3: a weight is not finite")
    ]
    assert list(result.details["methods"]) == ["Pretrained", "Pretrained-MP"]
    monkeypatch.setattr(runs, "train_run", lambda *_: fail(None, replace(Settings(), method="focus"), tmp_path))
    with pytest.raises(FocusError, match="no run came to an end: Neighbour, seed 0: training stopped"):
        run(tmp_path, recipes=("Neighbour",))


def test_table2_has_the_mean_face_once(tmp_path: Path, here: list[str]) -> None:
    result = run(tmp_path, "table2", recipes=("MoFA",), seeds=(0, 1))
    assert here == ["MoFA, seed 0", "MoFA, seed 1", "MeanFace"]
    assert list(result.details["methods"]) == ["MeanFace", "MeanFace-MP", "MoFA", "MoFA-MP"]
    claims = {claim["claim"] for claim in result.details["claims"]}
    assert claims == {f"{name}-MP against {name}: shape error" for name in ("MeanFace", "MoFA")}
    text = (tmp_path / "table2-x0.0005.md").read_text()
    assert "seeds 0, 1" in text
    assert "| MeanFace |" in text


def test_long_schedules_train_their_initial_weights_first(tmp_path: Path, here: list[str]) -> None:
    result = run(tmp_path, recipes=("Pretrained",), schedule="paper")
    assert here == ["initialisation", "Pretrained, seed 0"]
    (initial,) = (tmp_path / "runs").glob("pretrained-*/initialise.safetensors")
    (trained,) = (path.parent for path in (tmp_path / "runs").glob("*/done.json"))
    settings = Settings.from_dict(json.loads((trained / "done.json").read_text())["settings"])
    assert settings.start == initial.parent / "last.safetensors"
    assert settings.stages.initialise == 0
    assert result.details["training"]["start"] == "last.safetensors"  # no paths of this machine
    before = initial.stat().st_mtime_ns
    run(tmp_path, recipes=("Pretrained",), schedule="paper")
    assert initial.stat().st_mtime_ns == before, "they are trained once"


def test_hyperparameters_changes_one_weight_at_a_time(tmp_path: Path, here: list[str]) -> None:
    result = run(tmp_path, "hyperparameters", factors=(0.0, 1.0))
    assert here == ["standard, seed 0", *(f"{eta} x 0, seed 0" for eta in ETAS)]
    standard = result.details["standard"]
    assert standard == {eta: getattr(Settings.preset("small").segmentation_weights, eta) for eta in ETAS}
    assert result.details["runs"]["area x 0"]["point"] == ("area", 0.0)
    seen = set()
    for folder in (tmp_path / "runs").iterdir():
        weights = json.loads((folder / "done.json").read_text())["settings"]["segmentation_weights"]
        seen.add(tuple(eta for eta in ETAS if weights[eta] != standard[eta]))
        assert all(weights[eta] in (0.0, standard[eta]) for eta in ETAS)
    assert seen == {(), *((eta,) for eta in ETAS)}
    with Image.open(tmp_path / "hyperparameters-x0.0005.png") as picture:
        assert picture.width > picture.height > 300


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], here: list[str]) -> None:
    quick = ["--scale", "0.0005", "--faces", "2", "--misfit-faces", "2", "--seeds", "0", "--out", str(tmp_path)]
    assert main(["experiment", "ablation", "--recipes", "Pretrained", *quick, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["experiment"] == "ablation"
    assert all(Path(path).exists() for path in answer["written"])
    for arguments, message in (
        (["table3"], "expected one of table2, ablation, hyperparameters"),
        (["table2", "--recipes", "Focus"], "recipes: expected different ones of FOCUS, Perceptual"),
        (["ablation", "--seeds", "1", "1"], "seeds: expected different numbers"),
        (["ablation", "--subset", "dark"], "subset: expected one of general"),
        (["ablation", "--faces", "1"], "--faces: expected a whole number from 2"),
        (["hyperparameters", "--factors", "-1"], "--factors: expected a number from 0"),
        (["ablation", "--initial", "none.safetensors"], "none.safetensors"),
        (["ablation", "--workers", "0"], "--workers: expected a whole number from 1"),
    ):
        assert main(["experiment", *arguments, *(["--out", str(tmp_path)] if len(arguments) > 1 else [])]) == 2
        assert message in capsys.readouterr().err


def rows(offset: float) -> dict[str, Any]:
    """Scores of one run, as `Evaluation.metrics` has them."""
    half = dict.fromkeys(("accuracy", "precision", "recall", "f1"), 0.9 + offset)
    half |= {"f1_std": 0.05, "outlier_iou": 0.5 + offset, "appearance_rmse": 0.1}
    return {name: {**half, "shape_error_mm": {"median": 2.0, "mean": 2.2, "std": 1.0}} for name in HALVES}


HALVES = ("occluded", "unoccluded", "overall")


def result(method: str, seed: int, offset: float, count: int = 20) -> Result:
    base = np.random.default_rng(0).random(2 * count)  # the pictures are the same for all seeds
    own = np.random.default_rng([seed, *method.encode()]).normal(0, 0.002, 2 * count)  # what chance does to a method
    values = {
        name: tuple((0.4 * base + offset + own).tolist())
        for name in ("accuracy", "precision", "recall", "f1", "outlier_iou", "shape_error_mm", "appearance_rmse")
    }
    occluded = (True,) * count + (False,) * count
    names = tuple(map(str, range(count))) * 2
    return Result(
        method, seed, "general", 1, "d" * 64, "c", names, occluded, ("hand",) * 2 * count, (0.0,) * 2 * count, values
    )


def examples(names: Sequence[str]) -> Examples:
    face = torch.ones(2, 1, 16, 16)
    seen = {name: Seen(torch.rand(2, 3, 16, 16), face, torch.rand(2, 1, 16, 16)) for name in names}
    return Examples(torch.rand(2, 3, 16, 16), face, face, torch.rand(2, 3, 16, 16), seen)


ABOUT = {
    "experiment": "x",
    "schedule": "small",
    "scale": 1,
    "seeds": [0, 1],
    "subset": "general",
    "faces": 20,
    "misfit_faces": 5,
    "digest": "d" * 64,
    "trained_by": ["version 0.1", "a" * 40 + "+"],
    "machine": "a machine",
}


def test_report_of_pipelines() -> None:
    names = {"FOCUS": 0.05, "MoFA": 0.0}
    metrics = {n: [{n: rows(o), f"{n}-MP": rows(o)} for _ in range(2)] for n, o in names.items()}
    results = [
        result(name + suffix, seed, offset - (0.01 if suffix else 0))
        for name, offset in names.items()
        for suffix in ("", "-MP")
        for seed in (0, 1)
    ]
    report = pipelines_report(Pipelines(ABOUT, metrics, results, examples(list(names))))
    text = report.files[".md"].decode()
    assert "version 0.1, commit aaaaaaaaaa+" in text
    verdicts = {claim["claim"]: claim["verdict"] for claim in report.details["claims"]}
    assert verdicts == {
        "FOCUS against MoFA: shape error": "fails",  # larger by 0.05, and smaller is better
        "FOCUS against MoFA: appearance error": "fails",
        "FOCUS-MP against FOCUS: shape error": "holds",
        "MoFA-MP against MoFA: shape error": "holds",
    }
    prior = report.details["misfit_prior"]["MoFA"]["occluded"]
    assert prior["t_p"] < 1e-6
    assert prior["wilcoxon_p"] == pytest.approx(2 / 2**20)  # 20 pictures, all on one side, whatever the seeds
    assert {end for end in report.files if end.endswith(".png")} == {"-masks.png", "-faces.png"}


def test_report_of_a_sweep_names_directions() -> None:
    points: dict[str, tuple[str, float] | None] = {"standard": None}
    recall = {"standard": 0.5}
    # More of neighbor and distance lowers recall, more of area and binary raises it; preserve is the wrong way round.
    for eta, change in {"neighbor": -0.1, "distance": -0.1, "area": 0.1, "preserve": -0.1, "binary": 0.02}.items():
        for factor, sign in ((0.5, -1), (2.0, 1)):
            name = f"{eta} x {factor:g}"
            points[name], recall[name] = (eta, factor), 0.5 + sign * change
    metrics = {name: [{name: rows(0.0)} for _ in range(2)] for name in points}
    results = [result(name, seed, value) for name, value in recall.items() for seed in (0, 1)]
    weights = {"neighbor": 15.0, "distance": 3.0, "area": 0.5, "preserve": 2.5, "binary": 10.0}
    report = sweep_report(Sweep(ABOUT, weights, points, metrics, results, examples(list(points))))
    text = report.files[".md"].decode()
    cells = [line.split("|") for line in text.split("## Directions")[1].splitlines() if "|" in line]
    verdicts = {row[1].strip(): row[-2].strip() for row in cells}
    assert {eta for eta in ETAS if verdicts[eta] == "holds"} == {"neighbor", "distance", "area", "binary"}
    assert verdicts["preserve"] == "fails"
    assert report.details["directions"]["area"]["mean"] == pytest.approx(0.2, abs=0.005)
    assert "| neighbor, standard | 1 | 15 |" in text
