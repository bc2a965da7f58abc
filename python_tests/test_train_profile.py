"""Where the time of training goes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from focus.cli import main
from focus.losses import ReconstructionWeights
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import Settings
from focus.train.config import DataSettings, FaceSettings, LogSettings, StageSettings
from focus.train.profile import TRACED, WARM_UP, PhaseTimer
from focus.train.run import profile

SETTINGS = replace(
    Settings.preset("small"),
    image_size=32,
    batch_size=2,
    face=FaceSettings(detail="small", identity=4, expression=2, albedo=3),
    network=NetworkSettings(
        EncoderSettings(block="basic", blocks=(1,), widths=(8,), strides=(2,), stem_width=8, output_width=None),
        SegmentationSettings(filters=(8, 8), dropout=0.0),
    ),
    data=DataSettings(validation=0, distinct=4),
    stages=StageSettings(initialise=4, segmentation=2, joint=4, cycle=4, segmentation_in_cycle=2),
    reconstruction_weights=ReconstructionWeights(area=0.5),
    log=LogSettings(every=2, tensorboard="off", pictures=0),
    device="cpu",
    threads=1,
)


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_is_that_of_the_innermost_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    timer = PhaseTimer(torch.device("cpu"))

    def passes(seconds: float) -> None:
        clock.now += seconds

    for _ in range(WARM_UP + 2):
        with timer.iteration("kind"):
            passes(1)
            with timer.phase("outer"):
                passes(2)
                with timer.phase("inner"):
                    passes(4)
                    timer.switch("other")
                    passes(8)
                passes(16)
            timer.switch("nothing is under way")
            with timer.phase("data", whole=True), timer.phase("inner"):
                timer.switch("other")
                passes(32)
    (table,) = timer.tables()
    assert table.iterations == 2
    assert table.milliseconds == pytest.approx(63_000)
    times = {row.phase: row.milliseconds for row in table.rows}
    assert times == pytest.approx(
        {"outer": 18_000, "inner": 4_000, "other": 8_000, "data": 32_000, "everything else": 1_000}
    )
    assert sum(row.share for row in table.rows) == pytest.approx(1)


def test_a_profile_says_where_the_time_goes(tmp_path: Path) -> None:
    settings = replace(SETTINGS, stages=replace(SETTINGS.stages, initialise=1000, joint=1000))
    tables, written = profile(settings, tmp_path, iterations=2)
    assert {table.kind for table in tables} == {
        "initialise, reconstruction network",
        "segmentation, segmentation network",
        "joint, segmentation network",
        "joint, reconstruction network",
    }
    common = {"waiting for data", "moving data", "encoder", "decoding", "rendering", "optimizer", "logging"}
    for table in tables:
        phases = {row.phase for row in table.rows}
        assert common < phases
        assert table.iterations == 2
        learner = "encoder" if "reconstruction network" in table.kind else "segmentation network"
        assert f"{learner}, backward" in phases
        assert all(math.isfinite(row.milliseconds) and row.milliseconds >= 0 for row in table.rows)
    (joint,) = (table for table in tables if table.kind == "joint, segmentation network")
    wanted = {f"loss: {name}" for name in ("neighbor", "distance", "area", "preserve", "binary")}
    assert wanted | {"recognition features", "recognition features, backward"} < {row.phase for row in joint.rows}
    assert "encoder, backward" not in {row.phase for row in joint.rows}
    names = sorted(path.name for path in written)
    assert names[:2] == ["profile.json", "profile.txt"]
    assert len(names) == 2 + 4
    assert json.loads((tmp_path / "profile" / "profile.json").read_text())["kinds"][0]["iterations"] == 2
    assert not (tmp_path / "last.safetensors").exists()


def test_the_command_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--stages.initialise", "1", "--stages.segmentation", "0", "--stages.joint", "0", "--data.validation", "0"]
    assert main(["train", "--out", str(tmp_path), "--profile", "--batch-size", "2", "--image-size", "32", *few]) == 0
    told = capsys.readouterr()
    assert "initialise, reconstruction network:" in told.err + told.out
    assert (tmp_path / "profile" / "trace_initialise_reconstruction_network.json.gz").stat().st_size > 0
    assert TRACED > 0
