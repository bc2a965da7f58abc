"""What a run keeps of the network that it began with."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from focus.data import FaceBatch
from focus.errors import FocusError
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import Settings, Trainer, Turn, load_checkpoint, train
from focus.train.checkpoint import save_checkpoint
from focus.train.config import DataSettings, FaceSettings, LogSettings, StageSettings
from focus.train.trainer import MASK_SCORE

ENCODER = EncoderSettings(
    block="basic", blocks=(1, 1), widths=(8, 16), strides=(2, 2), stem_width=8, stem_kernel=3, output_width=None
)
SETTINGS = replace(
    Settings.preset("small"),
    image_size=32,
    batch_size=3,
    face=FaceSettings(detail="small", identity=4, expression=2, albedo=3),
    network=NetworkSettings(ENCODER, SegmentationSettings(filters=(4, 8), dropout=0.0)),
    data=DataSettings(validation=2),
    stages=StageSettings(initialise=2, segmentation=3, joint=2, cycle=2, segmentation_in_cycle=1),
    log=LogSettings(every=2, checkpoint_every=3, tensorboard="off", pictures=0),
    device="cpu",
    threads=1,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    assert train(replace(SETTINGS, seed=1), folder)
    return folder / "last.safetensors"


@pytest.fixture(scope="module")
def plain(start: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What is learnt from there."""
    folder = tmp_path_factory.mktemp("plain")
    assert train(replace(SETTINGS, start=start), folder)
    return load_checkpoint(folder / "last.safetensors").tensors


def test_the_masks_network_is_a_mean_of_weights(start: Path, plain: dict[str, Tensor], tmp_path: Path) -> None:
    assert train(replace(SETTINGS, start=start, keep=0.25), tmp_path)
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    assert checkpoint.header.validation["kept"] == {"step": 7}
    assert checkpoint.header.validation["last"]["step"] == 7
    began = load_checkpoint(start).tensors
    for name, value in plain.items():
        expected = value
        if name.startswith("segmentation.") and value.is_floating_point():
            expected = 0.75 * value + 0.25 * began[name]
            assert not torch.equal(value, began[name]) or "running" in name or value.dim() == 1, name
        torch.testing.assert_close(checkpoint.tensors[name], expected, rtol=1e-5, atol=1e-7, msg=name)
    # As it was before it is in the file of its stage.
    stage = load_checkpoint(tmp_path / "joint.safetensors").tensors
    assert all(torch.equal(stage[name], value) for name, value in plain.items())


def test_it_is_done_once(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the run was killed just before, and where it is resumed after its end."""
    settings, whole, halted = replace(SETTINGS, start=start, keep=0.5), tmp_path / "whole", tmp_path / "halted"
    assert train(settings, whole)
    first = load_checkpoint(whole / "last.safetensors").tensors

    class HaltError(Exception):
        pass

    def halt(self: Trainer) -> None:
        raise HaltError

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_keep", halt)
        with pytest.raises(HaltError):
            train(settings, halted)
    assert "kept" not in load_checkpoint(halted / "last.safetensors").header.validation
    for folder in (halted, halted, whole):
        assert train(settings, folder, resume=True)
        tensors = load_checkpoint(folder / "last.safetensors").tensors
        assert all(torch.equal(tensors[name], value) for name, value in first.items())


def test_nothing_is_kept_of_random_networks(tmp_path: Path) -> None:
    assert train(replace(SETTINGS, seed=1, keep=0.5), tmp_path)
    assert "kept" not in load_checkpoint(tmp_path / "last.safetensors").header.validation


def test_nothing_is_kept_of_masks_that_nobody_learnt(
    plain: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = StageSettings(initialise=2, segmentation=0, joint=0)
    assert train(replace(SETTINGS, stages=stages), tmp_path / "start")
    start = tmp_path / "start" / "last.safetensors"
    kept, learnt = tmp_path / "kept", tmp_path / "learnt"
    assert train(replace(SETTINGS, start=start, keep=0.5), kept)
    assert "nothing of it is kept" in capsys.readouterr().err
    assert train(replace(SETTINGS, start=start), learnt)
    first, second = (load_checkpoint(run / "last.safetensors").tensors for run in (kept, learnt))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_kept_is_of_the_start_that_the_run_had(start: Path, tmp_path: Path) -> None:
    """Not of a file that was put in its place while the run was halted, nor of none."""
    own = tmp_path / "start.safetensors"
    own.write_bytes(start.read_bytes())
    settings, run = replace(SETTINGS, start=own, keep=0.5), tmp_path / "run"
    assert train(settings, run)
    with pytest.raises(FocusError, match=r"setting start: a file before, and none now"):
        train(replace(settings, start=None), run, resume=True)
    assert train(replace(SETTINGS, seed=2), tmp_path / "other")
    own.write_bytes((tmp_path / "other" / "last.safetensors").read_bytes())
    with pytest.raises(FocusError, match=r"start.safetensors \(setting start\) is another file"):
        train(settings, run, resume=True)


@pytest.mark.parametrize(("cost", "kept"), [(0.04, True), (0.06, False)])
def test_a_mean_that_costs_much_is_taken_back(
    start: Path, plain: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, kept: bool
) -> None:
    """By the masks of the faces that are held out."""
    validate, keep, done = Trainer._validate, Trainer._keep, []

    def score(self: Trainer, turn: Turn) -> None:
        validate(self, turn)
        self.validated["last"] = {**self.validated["last"], MASK_SCORE: 0.8 - cost * len(done)}

    def keep_and_say(self: Trainer) -> None:
        done.append(1)
        keep(self)

    monkeypatch.setattr(Trainer, "_validate", score)
    monkeypatch.setattr(Trainer, "_keep", keep_and_say)
    assert train(replace(SETTINGS, start=start, keep=0.5), tmp_path)
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    assert checkpoint.header.validation["kept"] == {"step": 7}
    assert checkpoint.header.validation["last"][MASK_SCORE] == pytest.approx(0.8 - cost * kept)
    assert all(torch.equal(checkpoint.tensors[name], value) for name, value in plain.items()) is not kept


@pytest.mark.parametrize("name", ["last", "best", "stopped", "kept"])
def test_headers_that_lack_a_number_are_refused(start: Path, tmp_path: Path, name: str) -> None:
    checkpoint, path = load_checkpoint(start), tmp_path / "damaged.safetensors"
    checkpoint.header.validation[name] = {"other": 1.0}
    save_checkpoint(path, checkpoint.header, checkpoint.tensors)
    with pytest.raises(FocusError, match=r"header: validation: expected"):
        load_checkpoint(path)


@pytest.mark.parametrize("halted_at", [7, 5])
def test_the_end_of_a_turn_is_judged_whatever_ends_the_run_there(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halted_at: int
) -> None:
    """By a signal in its last iteration: before the run ends. By a kill after it was saved: when it goes on."""
    settings = replace(SETTINGS, start=start, stages=replace(SETTINGS.stages, joint=4))
    asked: list[int] = []
    iterate = Trainer._iterate

    def judge(self: Trainer, turn: Turn) -> bool:
        asked.append(self.step)
        return False

    def iterate_and_signal(self: Trainer, turn: Turn, batch: FaceBatch) -> None:
        iterate(self, turn, batch)
        if self.step == halted_at:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_is_worse", judge)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_iterate", iterate_and_signal)
        assert not train(settings, tmp_path / "signalled")
    assert asked == [step for step in (2, 5, 6, 7) if step <= halted_at]

    def die(self: Trainer, turn: Turn) -> bool:
        if self.step == halted_at:
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_is_worse", die)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "killed")
    asked.clear()
    assert train(settings, tmp_path / "killed", resume=True)
    assert asked == [step for step in (5, 6, 7, 8, 9) if step >= halted_at]
