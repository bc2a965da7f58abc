"""What a run keeps of the network that it began with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import Settings, Trainer, load_checkpoint, train
from focus.train.config import DataSettings, FaceSettings, LogSettings, StageSettings

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
