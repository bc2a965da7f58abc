"""Weights from files: what loads, and what every bad file is told."""

from __future__ import annotations

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
        with pytest.raises(FocusError, match=r"network weights: .*weights"):
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
