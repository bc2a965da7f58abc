"""Commands end to end, on tiny networks and synthetic photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import focus.demo.run
from focus import parallel
from focus.cli import NOTHING_WRITTEN, REFUSED, main
from focus.cli.train import parse
from focus.data import SyntheticFaces, SyntheticSettings, image_size, read_image, write_image
from focus.demo.gather import own_iterations, read_log
from focus.eval.misfit import MisfitPrior
from focus.face import MorphableModel
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.sealed import open_json
from focus.train import Settings, load_checkpoint, load_trained, shipped_checkpoint
from focus.train.config import DataSettings, FaceSettings, GuardSettings, LogSettings, StageSettings

TINY = replace(
    Settings.preset("small"),
    image_size=32,
    batch_size=2,
    face=FaceSettings(detail="small", identity=3, expression=2, albedo=2),
    network=NetworkSettings(
        EncoderSettings(block="basic", blocks=(1,), widths=(8,), strides=(2,), stem_width=8, output_width=None),
        SegmentationSettings(filters=(8, 8), dropout=0.0),
    ),
    data=DataSettings(validation=2),
    stages=StageSettings(initialise=4, segmentation=2, joint=8, cycle=4, segmentation_in_cycle=2),
    guard=GuardSettings(window=500),
    log=LogSettings(every=1, checkpoint_every=100, validate_every=2, tensorboard="off", pictures=1),
    device="cpu",
)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `small`, made tiny."""
    monkeypatch.setattr(Settings, "preset", classmethod(lambda cls, name: TINY))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five synthetic photos, a damaged one, and landmarks.csv with a row too many."""
    folder = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(MorphableModel.procedural("small"), 96, 3, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, 5)
    rows = []
    for i in range(5):
        write_image(folder / f"p{i}.png", batch.image[i].permute(1, 2, 0).numpy())
        rows.append([f"p{i}.png", *batch.landmarks[i].flatten().tolist()])
    (folder / "damaged.png").write_bytes((folder / "p0.png").read_bytes()[:200])
    rows += [["damaged.png", *rows[0][1:]], ["missing.png", *rows[0][1:]]]
    with open(folder / "landmarks.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def run(arguments: Sequence[object], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    """A command with --json: its exit code is as expected; returns what it said."""
    assert main([*map(str, arguments), "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["ok"] == (code == 0)
    return answer


def check_results(folder: Path, stem: str) -> None:
    """The files of one photo are there and belong to it."""
    for suffix in (".ply", ".obj", ".glb", "_overlay.png"):
        assert (folder / f"{stem}{suffix}").stat().st_size > 0
    values = json.loads((folder / f"{stem}.json").read_text())
    assert np.array(values["landmarks_68"]).shape == (68, 2)
    assert 0 <= values["occluded_fraction"] <= 1
    assert image_size(folder / f"{stem}_mask.png") == (96, 96)


def test_fit(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--image-size", 64, "--coarse-steps", 1, "--fine-steps", 2, "--model", "procedural-small"]
    given = [photos / name for name in ("p0.png", "damaged.png", "none.png")]
    answer = run(["fit", *given, *quick, "--landmarks", photos / "landmarks.csv", "--out", tmp_path], capsys)
    check_results(tmp_path, "p0")
    assert len(answer["written"]) == 6
    assert all(Path(path).is_file() for path in answer["written"])
    assert {Path(skip["name"]).name for skip in answer["skipped"]} == {"damaged.png", "none.png"}
    assert answer["photos"][0]["landmark_error_percent"] < 10
    nothing = ["fit", photos / "damaged.png", "--landmarks", photos / "landmarks.csv", "--out", tmp_path / "empty"]
    assert run([*nothing, "--model", "procedural-small"], capsys, NOTHING_WRITTEN)["written"] == []
    assert not (tmp_path / "empty").exists()


def test_antialias_changes_fit_and_training_and_nothing_else(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--landmarks", photos / "landmarks.csv"]
    quick = ["--image-size", 64, "--coarse-steps", 2, "--fine-steps", 3, "--model", "procedural-small"]
    found, learnt = {}, {}
    for name, option in (("on", ["--antialias"]), ("off", ["--no-antialias"]), ("default", [])):
        run(["fit", photos / "p0.png", *quick, *option, *source, "--out", tmp_path / name], capsys)
        check_results(tmp_path / name, "p0")
        found[name] = json.loads((tmp_path / name / "p0.json").read_text())
        answer = run(["train", "--out", tmp_path / f"run-{name}", "--method", "mofa", *option], capsys)
        assert answer["finished"]
        assert answer["settings"]["antialias"] is (name == "on")
        learnt[name] = read_log(tmp_path / f"run-{name}" / "log.jsonl")[-1]
    assert found["default"] == found["off"] != found["on"]
    assert learnt["default"]["shape_error_mm"] == learnt["off"]["shape_error_mm"] != learnt["on"]["shape_error_mm"]
    mask = read_image(tmp_path / "on" / "p0_mask.png")
    assert ((mask > 0) == (read_image(tmp_path / "off" / "p0_mask.png") > 0)).mean() > 0.95


def test_prepare(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(
        ["prepare", photos, "--landmarks", photos / "landmarks.csv", "--out", tmp_path, "--image-size", 48], capsys
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "landmarks.csv", "overview.png", "p0.png", "p1.png", "p2.png", "p3.png", "p4.png"
    ]  # fmt: skip
    assert [skip["name"] for skip in answer["skipped"]] == ["damaged.png", "missing.png"]
    assert image_size(tmp_path / "p3.png") == (48, 48)
    # Nothing of the user's is replaced by a crop of it.
    before = (photos / "p0.png").read_bytes()
    own_table = tmp_path / "table" / "landmarks.csv"
    own_table.parent.mkdir()
    own_table.write_bytes((photos / "landmarks.csv").read_bytes())
    for table, out in ((photos / "landmarks.csv", photos), (own_table, own_table.parent)):
        refused = run(["prepare", photos, "--landmarks", table, "--out", out], capsys, REFUSED)
        assert "would be replaced" in refused["error"]
    assert list(own_table.parent.iterdir()) == [own_table]
    assert (photos / "p0.png").read_bytes() == before
    small = ["prepare", photos, "--landmarks", photos / "landmarks.csv", "--out", tmp_path / "none"]
    assert "--image-size: expected a whole number from 8" in run([*small, "--image-size", 0], capsys, REFUSED)["error"]
    # The crops and their landmarks are themselves a folder of photos, cropped where they are.
    again = tmp_path / "again"
    run(["prepare", tmp_path, "--landmarks", tmp_path / "landmarks.csv", "--out", again, "--image-size", 48], capsys)
    first, second = (read_image(path / "p2.png").astype(float) for path in (tmp_path, again))
    assert np.abs(first - second).mean() < 3


def test_two_faces_of_a_photo_are_prepared_and_fitted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = (photos / "landmarks.csv").read_text().splitlines()[0].split(",")
    moved = [first[0], *(str(float(number) + 2) for number in first[1:])]
    table = tmp_path / "two.csv"
    table.write_text(";".join(first) + "\n" + ";".join(moved) + "\n")
    source = ["--landmarks", table, "--out"]
    answer = run(["prepare", photos, *source, tmp_path / "crops", "--image-size", 48], capsys)
    assert {Path(path).name for path in answer["written"]} >= {"p0_face1.png", "p0_face2.png"}
    quick = ["--image-size", 48, "--coarse-steps", 0, "--fine-steps", 1, "--model", "procedural-small"]
    run(["fit", photos / "p0.png", *quick, *source, tmp_path / "fit"], capsys)
    for stem in ("p0_face1", "p0_face2"):
        check_results(tmp_path / "fit", stem)


def test_train_resume_evaluate_reconstruct(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, exported = tmp_path / "run", tmp_path / "networks.safetensors"
    source = ["--photos", photos, "--landmarks", photos / "landmarks.csv"]
    answer = run(["train", "--out", folder, "--stages.joint", 4, "--export", exported, *source], capsys)
    assert answer["finished"]
    assert answer["settings"]["stages"]["joint"] == 4
    assert str(folder / "last.safetensors") in answer["written"]
    assert str(exported) in answer["written"]
    assert "already holds a run" in run(["train", "--out", folder, *source], capsys, REFUSED)["error"]
    run(["train", "--out", folder, "--stages.joint", 4, "--resume", *source], capsys)
    assert load_checkpoint(folder / "last.safetensors").header.step == 10

    scores = run(
        ["evaluate", "checkpoints", exported, "--faces", 2, "--device", "cpu", "--out", tmp_path / "scores"], capsys
    )
    assert list(scores["methods"]) == ["MeanFace", "FOCUS"]
    assert (
        "--faces: expected a whole number from 1"
        in run(["evaluate", "checkpoints", exported, "--faces", 0], capsys, REFUSED)["error"]
    )
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["methods"] == scores["methods"]

    options = ["--checkpoint", exported, "--out", tmp_path / "faces", "--device", "cpu"]
    result = run(["reconstruct", photos, "--landmarks", photos / "landmarks.csv", *options], capsys)
    assert len(result["photos"]) == 5
    check_results(tmp_path / "faces", "p4")


def test_train_options_reach_the_settings(photos: Path) -> None:
    options = ["--out", "x", "--method", "mofa", "--seed", "7", "--adapt", str(photos), "--adapt-landmarks", "a.csv"]
    settings = parse([*options, "--optimiser.initialise.start", "0.5"]).complete()
    assert (settings.method, settings.seed, settings.optimiser.initialise.start) == ("mofa", 7, 0.5)
    assert settings.data.adapt_photos == photos
    assert settings.stages.adapt == TINY.stages.cycle
    assert settings.stages.joint == TINY.stages.joint
    assert parse(["--out", "x", "--scale", "0.5"]).complete().stages.joint == TINY.stages.joint // 2


def test_train_refuses_what_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = [f"--stages.{name}=0" for name in ("initialise", "segmentation", "joint", "adapt")]
    assert "nothing to do" in run(["train", "--out", tmp_path, *none], capsys, REFUSED)["error"]
    assert "no face was found" in run(["train", "--out", tmp_path, "--photos", tmp_path], capsys, REFUSED)["error"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of the demo without processes, which take seconds to start; `test_cli_parallel` tests those."""

    def run_jobs(
        jobs: Sequence[parallel.Job], *, workers: int | None, on_report: Callable[[str, Any], None]
    ) -> dict[str, Any]:
        return {
            job.name: job.function(lambda value, name=job.name: on_report(name, value), **job.arguments) for job in jobs
        }

    monkeypatch.setattr(parallel, "run_jobs", run_jobs)
    monkeypatch.setattr(focus.demo.run, "shipped_checkpoint", lambda: None)


@pytest.mark.usefixtures("in_this_process")
def test_demo_refuses_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for options, message in (
        (["--out", tmp_path / "file"], "is there, and no folder"),
        (["--workers", 0], "--workers: expected a whole number from 1"),
        (["--device", "tpu"], "device: expected"),
        (["--test-faces", 0], "--test-faces: expected a whole number from 8"),
        (["--scale", "nan"], "--scale: expected a number"),
    ):
        assert message in run(["demo", "--out", tmp_path / "out", *options], capsys, REFUSED)["error"]
    assert not (tmp_path / "out" / "training").exists()


@pytest.mark.usefixtures("in_this_process")
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(["demo", "--out", tmp_path, "--seeds", 0, 1, "--test-faces", 8, "--workers", 2], capsys)
    metrics = json.loads((tmp_path / "seed-1" / "metrics.json").read_text())
    assert list(metrics) == ["seed", "commit", "settings", "methods", "checksum"]
    assert metrics["seed"] == 1
    assert list(metrics["methods"]) == ["MeanFace", "MoFA", "Pretrained", "FOCUS", "Oracle"]
    assert str(tmp_path) not in json.dumps(metrics)  # results carry no paths of the machine
    assert len(answer["claims"]) == 8
    assert set(answer["claims"][0]["across_runs"]) == {"mean", "low", "high"}
    page = (tmp_path / "seed-0" / "report.html").read_text()
    assert "Round 2" in page
    assert page.count("<svg") >= 8 + 4
    assert read_image(tmp_path / "seed-0" / "faces.png").std() > 20
    pooled = run(["evaluate", "runs", tmp_path / "seed-0", tmp_path / "seed-1", "--out", tmp_path / "both"], capsys)
    assert pooled["claims"] == answer["claims"]
    assert (tmp_path / "both" / "results.md").read_text() == (tmp_path / "results.md").read_text()
    # Every method saw the same faces for the same number of iterations of the reconstruction network.
    for name in ("FOCUS", "MoFA", "Pretrained", "Oracle"):
        training = tmp_path / "seed-0" / "training" / name
        settings = load_checkpoint(training / "last.safetensors").settings
        lines = read_log(training / "log.jsonl")
        assert own_iterations(settings, lines[-1]["step"]) == 4
        assert settings.seed == 0


@pytest.mark.usefixtures("in_this_process")
def test_demo_refuses_a_checkpoint_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    run(["train", "--out", other, "--image-size", 48, "--stages.joint", 0, "--stages.segmentation", 0], capsys)
    options = ["--out", tmp_path / "demo", "--initial", other / "last.safetensors", "--test-faces", 8]
    assert "48 pixels" in run(["demo", *options], capsys, REFUSED)["error"]
    assert (
        "--test-faces: expected a whole number from 8"
        in run(["demo", "--out", tmp_path / "demo", "--test-faces", 3], capsys, REFUSED)["error"]
    )
    assert not (tmp_path / "demo").exists()


def test_masks_against_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = np.ones((20, 20), np.float32)
    true[:, :5] = 0
    for name in ("masks", "truth"):
        (tmp_path / name).mkdir()
        for i in range(2):
            write_image(tmp_path / name / f"{i}.png", true if i or name == "truth" else np.ones_like(true))
    write_image(tmp_path / "masks" / "extra.png", true)
    write_image(tmp_path / "truth" / "lonely.png", true)
    answer = run(["evaluate", "masks", tmp_path / "masks", "--truth", tmp_path / "truth"], capsys)
    first, second = answer["images"]
    assert first["outlier_iou"] == 0
    assert first["accuracy"] == pytest.approx(301 / 402, abs=0.01)
    assert second["outlier_iou"] == 1
    assert answer["mean"]["outlier_iou"] == 0.5
    assert {skip["name"] for skip in answer["skipped"]} == {"extra.png", "lonely.png"}


def test_segmentation_then_compare_and_pose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    options = ["--faces", 3, "--subsets", "general", "large_pose", "--device", "cpu", "--out", tmp_path]
    answer = run(["evaluate", "segmentation", *options], capsys)
    rows = answer["subsets"]["general"]
    assert list(rows) == ["all face", "skin colour", "outlier-robust"]
    assert rows["all face"]["halves"]["occluded"]["outlier_iou"] == 0
    assert rows["all face"]["halves"]["overall"]["recall"] > 0.99
    assert sum(kind["pictures"] for kind in rows["all face"]["occluders"].values()) >= 6
    assert "by what is in front of the face" in (tmp_path / "segmentation.md").read_text()
    run(["evaluate", "segmentation", *options], capsys)  # once more: replaces its own lines
    results = tmp_path / "results.jsonl"
    assert len(results.read_text().splitlines()) == 6

    compared = run(["evaluate", "compare", results, "--reference", "skin colour", "--out", tmp_path / "c"], capsys)
    first = compared["comparisons"][0]
    assert first["reference"] == "skin colour"
    assert first["methods"]["all face"]["overall"]["recall"]["difference"]["mean"] >= 0
    assert "| skin colour |" in (tmp_path / "c" / "comparison.md").read_text()
    assert "expected one of" in run(["evaluate", "compare", results, "--reference", "x"], capsys, REFUSED)["error"]

    options = ["--subset", "large_pose", "--value", "f1", "--out", tmp_path / "p"]
    bins = run(["evaluate", "pose", results, *options], capsys)["bins"]
    assert sum(part["count"] for part in bins["occluded"]["all face"]) == 3
    assert read_image(tmp_path / "p" / "pose.png").std() > 5
    missing = run(["evaluate", "pose", results, "--subset", "sunny", "--out", tmp_path / "q"], capsys, REFUSED)
    assert "there are general, large_pose" in missing["error"]
    lines = [open_json(line) for line in results.read_text().splitlines()]
    (of_general,) = [line for line in lines if (line["method"], line["subset"]) == ("all face", "general")]
    with results.open("a") as file:  # a name that is no markup of the terminal's
        file.write(json.dumps({**of_general, "method": "mine [/x]"}) + "\n")
    assert "mine [/x]" in run(["evaluate", "compare", results], capsys)["comparisons"][0]["methods"]
    for more, expected in (
        ([results], "comes twice with seed 0"),
        (["--width", "inf"], "--width: expected a number from 1 to 180"),
        (["--methods", "sunny"], "methods: expected some of all face"),
        (["--methods", "all face", "mine [/x]"], "methods: mine [/x] with no result of the subset 'large_pose'"),
    ):
        answer = run(["evaluate", "pose", results, *more, *options[:4], "--out", tmp_path / "q"], capsys, REFUSED)
        assert expected in answer["error"]
    assert not (tmp_path / "q").exists()
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text(
        "".join(
            json.dumps({**line, "occluded": [], "names": [str(i) for i in range(len(line["names"]))]}) + "\n"
            for line in lines
        )
    )
    answer = run(["evaluate", "pose", unknown, *options], capsys, REFUSED)
    assert "nobody said which pictures of 'large_pose' are occluded" in answer["error"]
    network = shipped_checkpoint()
    assert network is not None
    options = ["--faces", 2, "--subsets", "general", "--device", "cpu", "--initial", network, "--out", tmp_path / "i"]
    named = run(["evaluate", "segmentation", network, network, *options], capsys)["subsets"]["general"]
    assert len(named) == 5
    assert f"all face on assets/{network.name}" in named
    refused = run(["evaluate", "segmentation", "--subsets", "sunny", "--out", tmp_path / "q"], capsys, REFUSED)
    assert "expected one of general" in refused["error"]


@pytest.mark.usefixtures("in_this_process")
def test_misfit_of_a_network_and_without_it(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("matplotlib", "scipy", "igl"):
        pytest.importorskip(module)
    network = tmp_path / "run" / "last.safetensors"
    run(["train", "--out", tmp_path / "run", "--stages.joint", 0, "--stages.segmentation", 0], capsys)
    other = tmp_path / "other.focusmodel"
    MorphableModel.procedural("small", 3, 2, 2).save(other)
    options = ["--faces", 4, "--test-faces", 3, "--test-model", other, "--device", "cpu", "--out", tmp_path / "misfit"]
    answer = run(["evaluate", "misfit", network, *options], capsys)
    (name,) = (key for key, value in answer.items() if isinstance(value, dict))
    tests = answer[name]["tests"]
    assert len(tests) == 2
    assert all(0 < test["without_mm"] < 20 and 0 <= test["t_p"] <= 1 for test in tests.values())
    assert all(test[f"{side}_vertices_mm"]["std"] > 0 for test in tests.values() for side in ("without", "with"))
    prior = next(path for path in answer["written"] if path.endswith(".safetensors"))
    assert read_image(next(path for path in answer["written"] if path.endswith(".png"))).std() > 20

    source = [photos, "--landmarks", photos / "landmarks.csv", "--checkpoint", network, "--device", "cpu"]
    for folder, more in (("plain", []), ("corrected", ["--misfit", prior])):
        run(["reconstruct", *source, "--out", tmp_path / folder, *more], capsys)
    plain = json.loads(next((tmp_path / "plain").glob("*.json")).read_text())["coefficients"]
    coefficients = (torch.tensor([plain[name]]) for name in ("identity", "expression"))
    shape = load_trained(network).model.shape(*coefficients)[0].numpy()  # the plain result has more vertices
    corrected = trimesh.load(next((tmp_path / "corrected").glob("*.ply"))).vertices
    assert np.abs(shape - corrected - MisfitPrior.load(prior).offsets.numpy()).max() < 1e-3
    refused = run(["reconstruct", *source, "--out", tmp_path / "x", "--misfit", network], capsys, REFUSED)
    assert "no file of focus evaluate misfit" in refused["error"]
    assert "at least one checkpoint" in run(["evaluate", "misfit", "--out", tmp_path / "x"], capsys, REFUSED)["error"]


def test_evaluate_refuses_what_it_cannot_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected one of checkpoints, " in run(["evaluate", "mask"], capsys, REFUSED)["error"]
    assert "at least one checkpoint" in run(["evaluate", "checkpoints"], capsys, REFUSED)["error"]
    assert "at least one folder" in run(["evaluate", "runs"], capsys, REFUSED)["error"]
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a.png", "a.jpg"):
        write_image(twice / name, np.ones((8, 8), np.float32))
    assert "another one of a." in run(["evaluate", "masks", twice, "--truth", twice], capsys, REFUSED)["error"]
    missing = tmp_path / "missing"
    assert "no such folder" in run(["evaluate", "masks", missing, "--truth", tmp_path], capsys, REFUSED)["error"]
    assert "no such file" in run(["evaluate", "runs", tmp_path], capsys, REFUSED)["error"]
    (tmp_path / "per_image.json").write_text("{}")
    for content in ("[]", "{}", '{"methods": {"FOCUS": 1}}', '{"methods": []}'):
        (tmp_path / "metrics.json").write_text(content)
        message = "expected a JSON object" if content == "[]" else "run the demo again"
        assert message in run(["evaluate", "runs", tmp_path], capsys, REFUSED)["error"]


def test_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, preview = tmp_path / "new" / "face.focusmodel", tmp_path / "face.png"
    counts = ["--identity", 3, "--expression", 1, "--albedo", 2]
    answer = run(["model", "procedural-small", *counts, "--save", saved, "--preview", preview], capsys)
    assert answer["written"] == [str(saved), str(preview)]
    again = run(["model", saved], capsys)
    assert again["model"] == answer["model"]
    assert again["model"]["identity"] == 3
    assert read_image(preview).std() > 20
    assert "identity: expected 0 to 80" in run(["model", "--identity", 999], capsys, REFUSED)["error"]
    assert "no such model file" in run(["model", tmp_path / "none.h5"], capsys, REFUSED)["error"]
    assert "--seed" in run(["model", "procedural-small", "--seed", 2**70], capsys, REFUSED)["error"]


def test_model_with_landmarks_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, indices, saved = tmp_path / "flame.npz", tmp_path / "indices.txt", tmp_path / "flame.focusmodel"
    face = MorphableModel.procedural("small", 1, 1, 1)
    directions = np.zeros((face.vertex_count, 3, 301), np.float32)
    np.savez(source, v_template=face.mean_shape / 1000, shapedirs=directions, f=face.faces)
    advice = f"focus model {source} --landmarks68"
    assert advice in run(["model", source], capsys, REFUSED)["error"]
    indices.write_text(" ".join(map(str, face.landmarks68.tolist())))
    run(["model", source, "--landmarks68", indices, "--save", saved, "--identity", 2], capsys)
    assert MorphableModel.load(saved).landmarks68.equal(face.landmarks68)
    assert run(["model", saved], capsys)["model"]["identity"] == 2
    refused = run(["model", "procedural", "--landmarks68", indices], capsys, REFUSED)["error"]
    assert "landmarks of procedural are known" in refused


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {check["name"]: check for check in run(["doctor"], capsys)["checks"]}
    assert checks["operators, cpu"]["state"] == "good"
    assert checks["compiled module"]["state"] == "good"
    from focus import ops

    # A doctor who finds nothing wrong with a wrong operator is no use.
    right = ops.sh_shading
    monkeypatch.setattr(ops, "sh_shading", lambda *arguments: 1.01 * right(*arguments))
    sick = {check["name"]: check for check in run(["doctor"], capsys, NOTHING_WRITTEN)["checks"]}
    assert sick["operators, cpu"]["state"] == "bad"
    assert "sh_shading" in sick["operators, cpu"]["text"]
