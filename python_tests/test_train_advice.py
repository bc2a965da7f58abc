"""What is said of a run that goes on but not as it might, and which of its checkpoints stay."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from focus.errors import FocusError
from focus.train import Settings, load_checkpoint, train
from focus.train.advice import Adviser
from focus.train.config import DataSettings, FaceSettings, LogSettings, StageSettings
from focus.train.retention import retain

Reports = Callable[..., list[str]]


@pytest.fixture
def told() -> Reports:
    adviser = Adviser(workers=1)

    def hear(
        count: int,
        *,
        stage: str = "joint",
        network: str = "segmentation",
        seconds: float = 0.1,
        waiting: float = 0.0,
        **means: float,
    ) -> list[str]:
        return [text for _ in range(count) for text in adviser.hear(stage, network, seconds, waiting, means)]

    return hear


def test_nothing_is_said_of_a_run_as_it_should_be(told: Reports) -> None:
    for network in ("segmentation", "reconstruction"):
        pace = 0.1 if network == "segmentation" else 1.0  # another kind has another pace
        for norm in (1.0, 3.0, 0.5, 8.0):
            assert told(4, network=network, seconds=pace, waiting=0.01, gradient_norm=norm, mask=0.7) == []


def test_waiting_for_faces_is_told_once_in_a_stage(told: Reports) -> None:
    assert told(2, waiting=0.03) == []
    (text,) = told(5, waiting=0.03)
    assert text.startswith("joint: 30% of the time goes to waiting for faces")
    assert "now 1 draw ahead" in text
    assert len(told(5, stage="adapt", waiting=0.05)) == 1


def test_who_draws_faces_alone_is_told_so() -> None:
    adviser = Adviser(workers=0)
    found = [text for _ in range(3) for text in adviser.hear("initialise", "reconstruction", 1.0, 0.6, {})]
    assert len(found) == 1
    assert "60% of the time" in found[0]
    assert "none draw ahead" in found[0]


def test_a_pace_that_halves_is_told(told: Reports) -> None:
    told(8)
    assert told(1, seconds=0.9) == []  # an accident
    assert told(5) == []
    (text,) = told(3, seconds=0.25)
    assert "takes 250 ms and took 100 ms before" in text


def test_masks_that_drift_are_told(told: Reports) -> None:
    told(6, mask=0.8)
    assert told(3, mask=0.7) == []
    (text,) = told(4, mask=0.5)
    assert "80% of the rendered faces were called seen at first and 50% are: more and more is called hidden" in text
    told(6, stage="segmentation", mask=0.2)
    assert told(6, stage="segmentation", mask=0.8) == []  # they are learnt there


def test_gradients_that_explode_are_told(told: Reports) -> None:
    told(6, gradient_norm=2.0)
    assert told(2, gradient_norm=50.0) == []
    (text,) = told(2, gradient_norm=50.0)
    assert "the gradient of the segmentation network is 25 times as long" in text


@pytest.fixture
def last(tmp_path: Path) -> Callable[[int], Path]:
    def write(step: int) -> Path:
        new = tmp_path / "new"
        new.write_text(str(step))
        return new.replace(tmp_path / "last.safetensors")

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_the_newest_and_the_best_stay(
    last: Callable[[int], Path], tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    for step in range(1, 6):
        retain(last(step), step=step, best=step == 2, count=2)
    assert names(tmp_path) == [
        "best.safetensors",
        "iteration_0000004.safetensors",
        "iteration_0000005.safetensors",
        "last.safetensors",
    ]
    assert (tmp_path / "best.safetensors").read_text() == "2"
    assert (tmp_path / "iteration_0000004.safetensors").read_text() == "4"
    retain(last(6), step=6, best=False, count=0)
    assert (tmp_path / "iteration_0000005.safetensors").read_text() == "5"  # of a run that asked for them


def test_what_a_kill_undid_goes_first(last: Callable[[int], Path], tmp_path: Path) -> None:
    for step in (1, 2, 3):
        retain(last(step), step=step, best=False, count=3)
    retain(last(2), step=2, best=False, count=2)  # it went on from 1
    assert names(tmp_path) == ["iteration_0000001.safetensors", "iteration_0000002.safetensors", "last.safetensors"]


def test_where_nothing_can_be_written_nothing_goes(
    last: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retain(last(1), step=1, best=True, count=1)
    before = names(tmp_path)
    path = last(2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(FocusError, match=r"iteration_0000002.safetensors cannot be written: No space left"):
        retain(path, step=2, best=False, count=1)
    assert names(tmp_path) == before


def test_a_run_keeps_what_its_settings_say(tmp_path: Path) -> None:
    settings = replace(
        Settings.preset("small"),
        image_size=32,
        batch_size=2,
        face=FaceSettings(detail="small", identity=3, expression=2, albedo=2),
        data=DataSettings(validation=2, distinct=4),
        stages=StageSettings(initialise=6, segmentation=0, joint=0),
        log=LogSettings(every=1, checkpoint_every=2, validate_every=3, checkpoints=1, tensorboard="off", pictures=0),
        device="cpu",
        threads=1,
    )
    assert train(settings, tmp_path)
    found = [name for name in names(tmp_path) if name.endswith(".safetensors")]
    assert found == [
        "best.safetensors",
        "initialise.safetensors",
        "iteration_0000006.safetensors",
        "last.safetensors",
    ]
    best = load_checkpoint(tmp_path / "best.safetensors").header
    assert best.validation["best"]["step"] == best.step
    assert load_checkpoint(tmp_path / "last.safetensors").header.validation["best"]["step"] == best.step
