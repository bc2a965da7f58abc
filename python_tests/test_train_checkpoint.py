"""Checkpoints: what goes in comes out, whatever happens while writing, and bad files are named."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from focus.errors import FocusError
from focus.face import MorphableModel
from focus.train import Header, Networks, Settings, export, load_checkpoint, load_trained, save_checkpoint


def header(**changes: object) -> Header:
    return Header(**{"settings": {}, "model_name": "test", "model_fingerprint": "0", **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return Settings.preset("small").face.build()


@pytest.fixture(scope="module")
def trained(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the preset `small`, at random."""
    settings = Settings.preset("small")
    torch.manual_seed(0)
    networks = Networks.build(settings, model)
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    tensors["optimiser.reconstruction.exp_avg.0"] = torch.ones(3)
    content = header(settings=settings.to_dict(), model_name=model.name, model_fingerprint=model.fingerprint(), step=7)
    return save_checkpoint(tmp_path_factory.mktemp("trained") / "last.safetensors", content, tensors)


def test_round_trip(tmp_path: Path) -> None:
    tensors = {
        "reconstruction.weight": torch.randn(3, 4),
        "reconstruction.count": torch.tensor(5),
        "segmentation.transposed": torch.randn(4, 3).T,
        "segmentation.empty": torch.empty(0, 2),
    }
    written = header(step=12, optimiser={"segmentation": {"step.0": 3.0}}, validation={"last": {"loss": 0.5}})
    path = save_checkpoint(tmp_path / "new" / "a.safetensors", written, tensors)
    read = load_checkpoint(path)
    assert {name: value.tolist() for name, value in read.tensors.items()} == {n: v.tolist() for n, v in tensors.items()}
    assert (read.header.step, read.header.optimiser, read.header.validation) == (
        12,
        written.optimiser,
        written.validation,
    )
    assert set(read.state("segmentation")) == {"transposed", "empty"}
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_nothing_in_the_file_can_run(trained: Path) -> None:
    content = trained.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert set(json.loads(content[8 : 8 + length])["__metadata__"]) == {"focus"}  # a JSON header, then numbers


def damaged_files(tmp_path: Path, good: bytes) -> Iterator[tuple[str, bytes, str]]:
    middle = len(good) // 2
    yield "cut short", good[:middle], "cannot be read"
    yield "only a header", good[:100], "cannot be read"
    yield "empty", b"", "cannot be read"
    yield "one bit flipped", good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :], "checksum"
    yield "text", b"weights, weights, weights" * 20, "cannot be read"
    yield "foreign", safetensors.torch.save({"conv1.weight": torch.ones(2)}), "not one that FOCUS wrote"
    yield "damaged header", safetensors.torch.save({"a": torch.ones(2)}, {"focus": "{"}), "header"
    yield "wrong header", safetensors.torch.save({"a": torch.ones(2)}, {"focus": "{}"}), "header"
    newer = json.dumps({**vars(header()), "format": 99})
    yield "newer", safetensors.torch.save({"a": torch.ones(2)}, {"focus": newer}), "format 99"


def test_bad_files_are_named(tmp_path: Path, trained: Path) -> None:
    path = tmp_path / "bad.safetensors"
    for what, content, message in damaged_files(tmp_path, trained.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(FocusError, match=message) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value), what
    with pytest.raises(FocusError, match="found none"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_the_whole_face_model_will_do(trained: Path, model: MorphableModel) -> None:
    found = load_trained(trained, model=MorphableModel.procedural("small")).model
    assert found.fingerprint() == model.fingerprint()


def test_another_face_model_is_refused(trained: Path, model: MorphableModel) -> None:
    with pytest.raises(FocusError, match="trained with the face model"):
        load_trained(trained, model=model.truncated(identity=5))


def test_export_is_small_and_starts_other_runs(trained: Path, tmp_path: Path, model: MorphableModel) -> None:
    path, size = export(trained, tmp_path / "small.safetensors")
    assert size == path.stat().st_size <= 8e6
    exported = load_checkpoint(path)
    assert exported.header.kind == "inference"
    assert not exported.state("optimiser")
    whole, half = load_trained(trained, model=model), load_trained(path, model=model)
    assert not half.networks.reconstruction.training
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = [result.networks.reconstruction.trunk.conv1(images) for result in (whole, half)]
    assert torch.allclose(*features, atol=1e-2, rtol=1e-2)  # 11 bits of mantissa, sums of 75 products
    assert not torch.equal(*features)
    alone, smaller = export(trained, tmp_path / "encoder.safetensors", segmentation=False)
    assert smaller < size
    assert not load_checkpoint(alone).state("segmentation")
    assert load_trained(alone, model=model).checkpoint.header.step == 7


def test_what_is_handed_on_names_no_place_of_this_machine(tmp_path: Path) -> None:
    settings = Settings.preset("photos")
    data = replace(settings.data, photos=tmp_path / "photos", landmarks=tmp_path / "l.csv")
    settings = replace(settings, start=tmp_path / "start", imagenet=tmp_path / "i", arcface=tmp_path / "a", data=data)
    content = header(settings=settings.to_dict(), data={"photos": "digest"})
    path = save_checkpoint(tmp_path / "last.safetensors", content, {"reconstruction.weight": torch.ones(2)})
    exported, _ = export(path, tmp_path / "out.safetensors")
    assert str(tmp_path).encode() in path.read_bytes()
    assert str(tmp_path).encode() not in exported.read_bytes()
    assert Settings.from_dict(load_checkpoint(exported).header.settings).teacher == "fit"


def test_export_refuses_what_half_precision_cannot_hold(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "a.safetensors", header(), {"reconstruction.weight": torch.full((2, 2), 1e6)})
    with pytest.raises(FocusError, match="half precision"):
        export(path, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "a.safetensors", header(step=1), {"reconstruction.weight": torch.ones(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # Python ignores SIGXFSZ: writing more fails
    try:
        with pytest.raises(FocusError, match=r"cannot be written.*older file of that name is unchanged"):
            save_checkpoint(path, header(step=2), {"reconstruction.weight": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path).header.step == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FocusError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "a.safetensors", header(), {"reconstruction.weight": torch.ones(1)})


def test_a_kill_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    program = """
        import sys, torch
        from focus.train.checkpoint import Header, save_checkpoint
        step = 0
        while True:
            step += 1
            tensors = {"reconstruction.weight": torch.full((1_000_000,), float(step))}
            save_checkpoint(sys.argv[1], Header({}, "test", "0", step=step), tensors)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(path)], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for pause in (0.0, 0.011, 0.023, 0.037, 0.05):  # stopped somewhere, on average in the middle of a file
            time.sleep(pause)
            process.send_signal(signal.SIGSTOP)
            read = load_checkpoint(path)
            assert (read.tensors["reconstruction.weight"] == read.header.step).all()
            process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    read = load_checkpoint(path)
    assert (read.tensors["reconstruction.weight"] == read.header.step).all()
    save_checkpoint(path, header(step=1), {"reconstruction.weight": torch.ones(1)})
    assert os.listdir(tmp_path) == ["a.safetensors"]  # what the kill left is gone
