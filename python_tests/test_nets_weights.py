"""Weights from files: what loads, and what every bad file is told."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from focus.errors import FocusError
from focus.nets import ResNet, load_weights, read_weights


def tiny() -> ResNet:
    return ResNet(block="basic", blocks=(1, 1), widths=(8, 8), strides=(1, 2), stem_width=8, outputs=5)


@pytest.fixture
def imagenet() -> dict[str, Tensor]:
    """Stands for ImageNet weights: the same trunk, another output layer."""
    torch.manual_seed(1)
    network = tiny()
    network.fc = nn.Linear(8, 1000)
    return network.state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_replace_all_but_the_output_layer(
    tmp_path: Path, imagenet: dict[str, Tensor], suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(imagenet, path) if suffix == ".safetensors" else torch.save(imagenet, path)
    network = tiny()
    network.load_imagenet_weights(path)
    for name, value in network.state_dict().items():
        if name.startswith("fc."):
            assert not value.any()
        else:
            assert torch.equal(value, imagenet[name]), name


def test_wrapped_prefixed_old_and_half_precision_weights_load(tmp_path: Path, imagenet: dict[str, Tensor]) -> None:
    old = {
        f"module.{name}": value.half() if value.is_floating_point() else value
        for name, value in imagenet.items()
        if not name.endswith("num_batches_tracked") and not name.startswith("fc.")
    }
    torch.save({"state_dict": old, "epoch": 90}, tmp_path / "old.pth")
    network = tiny()
    network.load_imagenet_weights(tmp_path / "old.pth")
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, imagenet["conv1.weight"].half().float())


def test_every_difference_is_listed_and_nothing_is_loaded(imagenet: dict[str, Tensor]) -> None:
    weights = dict(imagenet)
    del weights["bn1.weight"]
    weights["head.weight"] = torch.zeros(3)
    weights["conv1.weight"] = torch.zeros(16, 3, 7, 7)
    weights["bn1.bias"] = torch.full((8,), float("nan"))
    network = tiny()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(FocusError) as failure:
        load_weights(network, weights, source="file.pth", keep=("fc.weight", "fc.bias"))
    message = str(failure.value)
    for part in (
        "file.pth does not fit ResNet",
        "1 missing: bn1.weight",
        "1 unexpected: head.weight",
        "1 of another shape: conv1.weight (expected [8, 3, 7, 7], got [16, 3, 7, 7])",
        "1 not finite: bn1.bias",
    ):
        assert part in message
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_long_lists_are_cut(imagenet: dict[str, Tensor]) -> None:
    with pytest.raises(FocusError, match=r"missing: .* and \d+ more"):
        load_weights(tiny(), {"conv1.weight": imagenet["conv1.weight"]}, source="file.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FocusError, match=r"expected a file, found none at .*nothing\.pth"):
        read_weights(tmp_path / "nothing.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_file(tmp_path: Path, imagenet: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(imagenet, path) if suffix == ".safetensors" else torch.save(imagenet, path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not weights at all", b"\x80\x02J\x01"):
        path.write_bytes(damaged)
        with pytest.raises(FocusError, match=r"network weights: .*weights" if damaged else "weights.*is empty"):
            read_weights(path)


def test_a_pickled_module_is_not_unpickled(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(FocusError, match="whole pickled module is refused"):
        read_weights(tmp_path / "module.pth")


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {}])
def test_something_other_than_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(FocusError, match="expected a non-empty dict of tensors"):
        read_weights(tmp_path / "other.pth")


def test_values_that_are_not_tensors(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "step": 3}, tmp_path / "other.pth")
    with pytest.raises(FocusError, match="these are not: step"):
        read_weights(tmp_path / "other.pth")


def _tensors() -> dict[str, Tensor]:
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    return {
        "sparse_coo": torch.ones(3).to_sparse(),
        "sparse_csr": torch.eye(3).to_sparse_csr(),
        "quantised": quantised,
        "'meta'": torch.empty(3, device="meta"),
        "complex64": torch.ones(3, dtype=torch.complex64),
        "bool": torch.ones(3, dtype=torch.bool),
        "uint8": torch.ones(3, dtype=torch.uint8),
        "float8_e4m3fn": torch.ones(3).to(torch.float8_e4m3fn),
        "of 4 bytes": torch.ones(1).expand(1 << 40),
    }


@pytest.mark.filterwarnings("ignore")  # torch says of some of them that they are new
@pytest.mark.parametrize("what", ["sparse_coo", "sparse_csr", "quantised", "'meta'", "complex64", "bool", "uint8"])
@pytest.mark.parametrize("legacy", [True, False])
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, what: str, legacy: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"good": torch.ones(3), "bad": _tensors()[what]}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FocusError, match=rf"weights\.pth.* (bad \(|cannot be read).*{what if not legacy else ''}"):
        read_weights(path)


def test_tensors_that_claim_more_than_they_hold_are_named(tmp_path: Path) -> None:
    for what in ("float8_e4m3fn", "of 4 bytes"):
        torch.save({"bad": _tensors()[what]}, tmp_path / "weights.pth")
        with pytest.raises(FocusError, match=rf"weights\.pth: expected dense tensors .* bad \(.*{what}"):
            read_weights(tmp_path / "weights.pth")
    save_file({"bad": torch.ones(3, dtype=torch.bool)}, tmp_path / "weights.safetensors")
    with pytest.raises(FocusError, match=r"weights\.safetensors: .* bad \(torch\.bool\)"):
        read_weights(tmp_path / "weights.safetensors")


def test_whole_numbers_for_others_are_listed(imagenet: dict[str, Tensor]) -> None:
    weights = {**imagenet, "bn1.weight": torch.ones(8, dtype=torch.int64), "bn1.num_batches_tracked": torch.tensor(1.5)}
    weights["bn1.bias"] = torch.full((8,), 1e300, dtype=torch.float64)
    with pytest.raises(FocusError) as failure:
        load_weights(tiny(), weights, source="file.pth", keep=("fc.weight", "fc.bias"))
    assert "2 of another kind of numbers: " in str(failure.value)
    assert "bn1.weight (expected torch.float32, got torch.int64)" in str(failure.value)
    assert "1 not finite: bn1.bias" in str(failure.value)


def test_compressed_archives_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in good.infolist():
            bomb.writestr(entry.filename, good.read(entry))
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 16
    with pytest.raises(FocusError, match=r"bomb\.pth is a compressed archive"):
        read_weights(tmp_path / "bomb.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_ordinary_files(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"weights{suffix}")
    with pytest.raises(FocusError, match="FIFO"):
        read_weights(tmp_path / f"weights{suffix}")
