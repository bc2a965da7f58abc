"""The reconstruction network: its size, its names, and where training starts."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from focus.face.lighting import AMBIENT_COEFFICIENT
from focus.nets import EncoderSettings, NetworkSettings, ReconstructionNetwork, ResNet
from focus.nets.resnet import normalisation_layer

BFM_COUNTS = {"identity_count": 199, "expression_count": 100, "albedo_count": 199}


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def torchvision_resnet50_names() -> set[str]:
    """The state dict of torchvision's resnet50, written down from its naming scheme."""

    def batch_norm(name: str) -> set[str]:
        return {f"{name}.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    names = {"conv1.weight", "fc.weight", "fc.bias"} | batch_norm("bn1")
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            for part in (1, 2, 3):
                names |= {f"layer{layer}.{block}.conv{part}.weight"} | batch_norm(f"layer{layer}.{block}.bn{part}")
        names |= {f"layer{layer}.0.downsample.0.weight"} | batch_norm(f"layer{layer}.0.downsample.1")
    return names


@pytest.fixture(scope="module")
def small() -> ReconstructionNetwork:
    torch.manual_seed(0)
    settings = NetworkSettings.preset("small").encoder
    return ReconstructionNetwork(settings, identity_count=12, expression_count=6, albedo_count=10)


def test_paper_network_has_the_stated_size_and_torchvision_names() -> None:
    with torch.device("meta"):
        network = ReconstructionNetwork(EncoderSettings(), **BFM_COUNTS)
    assert parameter_count(network) == 25_557_032
    assert set(network.trunk.state_dict()) == torchvision_resnet50_names()
    shapes = {name: tuple(value.shape) for name, value in network.trunk.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["fc.weight"] == (1000, 2048)


def test_state_dict_holds_weights_only(small: ReconstructionNetwork) -> None:
    assert all(name.startswith("trunk.") for name in small.state_dict())


def test_stride_is_on_the_middle_convolution_of_a_bottleneck() -> None:
    with torch.device("meta"):
        block = ResNet().layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_small_network_is_small_and_exactly_as_wide_as_needed(small: ReconstructionNetwork) -> None:
    assert parameter_count(small) < 3_500_000
    assert small.trunk.fc.out_features == 12 + 6 + 10 + 6 + 27


@pytest.mark.parametrize("size", [64, 65, 72, 80])
def test_training_starts_at_the_mean_face(small: ReconstructionNetwork, size: int) -> None:
    parameters = small(torch.rand(2, 3, size, size))
    assert parameters.identity.shape == (2, 12)
    for name in ("identity", "expression", "albedo", "rotation", "translation"):
        assert not getattr(parameters, name).any(), name
    expected = torch.zeros(2, 3, 9)
    expected[:, :, 0] = AMBIENT_COEFFICIENT
    assert torch.equal(parameters.lighting, expected)


def test_outputs_are_sliced_and_scaled_as_the_official_code_does() -> None:
    with torch.device("meta"):
        network = ReconstructionNetwork(EncoderSettings(), **BFM_COUNTS)
    network.register_buffer("scale", meta_free_scale(), persistent=False)
    network.register_buffer("offset", torch.zeros(531), persistent=False)
    raw = torch.arange(1000.0).expand(2, -1)
    parameters = network.decode(raw)
    assert torch.equal(parameters.identity[0, :80], torch.arange(80.0))
    assert not parameters.identity[0, 80:].any()
    assert torch.equal(parameters.expression[0, :64], torch.arange(199.0, 263.0))
    assert not parameters.expression[0, 64:].any()
    assert torch.equal(parameters.albedo[0, :80], 3 * torch.arange(299.0, 379.0))
    assert not parameters.albedo[0, 80:].any()
    assert torch.allclose(parameters.rotation[0], 0.3 * torch.arange(498.0, 501.0))
    assert torch.allclose(parameters.translation[0], torch.tensor([501.0, 502.0, 0.005 * 503.0]))
    assert torch.equal(parameters.lighting[0], torch.arange(504.0, 531.0).view(3, 9))


def meta_free_scale() -> torch.Tensor:
    ones = torch.ones
    return torch.cat((ones(299), 3 * ones(199), 0.3 * ones(3), torch.tensor([1.0, 1.0, 0.005]), ones(27)))


def test_slices_are_limited_by_the_model_and_padded_to_it() -> None:
    settings = dataclasses.replace(NetworkSettings.preset("small").encoder, identity_count=5, expression_used=2)
    network = ReconstructionNetwork(settings, identity_count=8, expression_count=4, albedo_count=0)
    assert network.trunk.fc.out_features == 5 + 4 + 0 + 33
    nn.init.ones_(network.trunk.fc.bias)
    parameters = network(torch.rand(1, 3, 64, 64))
    assert parameters.identity.tolist() == [[1.0] * 5 + [0.0] * 3]
    assert parameters.expression.tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert parameters.albedo.shape == (1, 0)


def test_output_layer_that_is_too_narrow_is_refused() -> None:
    settings = dataclasses.replace(NetworkSettings.preset("small").encoder, output_width=40)
    with pytest.raises(ValueError, match="at least 61"):
        ReconstructionNetwork(settings, identity_count=12, expression_count=6, albedo_count=10)


@pytest.mark.parametrize("images", [torch.rand(2, 64, 64), torch.rand(1, 1, 64, 64), torch.zeros(1, 3, 64, 64).byte()])
def test_wrong_images_are_refused(small: ReconstructionNetwork, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: expected floating point \[B, 3, H, W\]"):
        small(images)


def test_every_parameter_learns_once_the_output_layer_is_not_zero() -> None:
    torch.manual_seed(0)
    settings = NetworkSettings.preset("small").encoder
    network = ReconstructionNetwork(settings, identity_count=12, expression_count=6, albedo_count=10)
    images = torch.rand(2, 3, 64, 64)
    sum(value.square().sum() for _, value in network(images).items()).backward()
    assert network.trunk.fc.bias.grad is not None
    assert network.trunk.fc.bias.grad.any()
    nn.init.normal_(network.trunk.fc.weight, std=0.1)
    network.zero_grad()
    sum(value.square().sum() for _, value in network(images).items()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_group_norm_does_not_mix_the_images_of_a_batch(small: ReconstructionNetwork) -> None:
    torch.manual_seed(1)
    network = ReconstructionNetwork(small.settings, identity_count=12, expression_count=6, albedo_count=10)
    nn.init.normal_(network.trunk.fc.weight, std=0.1)
    images = torch.rand(3, 3, 64, 64)
    together, alone = network(images), network(images[1:2])
    assert torch.allclose(together.rotation[1:2], alone.rotation, atol=1e-5)


def test_frozen_normalisation_keeps_its_statistics_in_training() -> None:
    def statistics_move(frozen: bool) -> bool:
        network = ResNet(
            block="basic",
            blocks=(1,),
            widths=(8,),
            strides=(1,),
            stem_width=8,
            outputs=4,
            frozen_normalisation=frozen,
        ).train()
        before = network.bn1.running_mean.clone()
        network(torch.rand(2, 3, 32, 32))
        return not torch.equal(before, network.bn1.running_mean)

    assert statistics_move(frozen=False)
    assert not statistics_move(frozen=True)


@pytest.mark.parametrize(("channels", "groups"), [(24, 6), (32, 8), (64, 8), (12, 3), (7, 1)])
def test_groups_divide_the_channels_and_hold_at_least_four(channels: int, groups: int) -> None:
    layer = normalisation_layer(channels, "group")
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="'batch' or 'group'"):
        normalisation_layer(8, "layer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same number of stages"):
        ResNet(blocks=(1, 1))
    with pytest.raises(ValueError, match="'basic' or 'bottleneck'"):
        ResNet(block="wide")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd number"):
        ResNet(stem_kernel=4)


@pytest.mark.parametrize("name", ["paper", "official", "small"])
def test_settings_survive_json(name: str) -> None:
    settings = NetworkSettings.preset(name)  # type: ignore[arg-type]
    assert NetworkSettings.from_dict(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown settings depth"):
        NetworkSettings.from_dict({"encoder": {"depth": 50}})
    with pytest.raises(ValueError, match="encoder and segmentation"):
        NetworkSettings.from_dict({"decoder": {}})
    with pytest.raises(ValueError, match="expected 'paper', 'official', 'small' or 'photos'"):
        NetworkSettings.preset("large")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identity_used"):
        EncoderSettings(identity_used=-1)
    with pytest.raises(ValueError, match=r"EncoderSettings.widths: expected numbers >= 1, got \(64, 0"):
        EncoderSettings(widths=(64, 0, 64, 64))
    with pytest.raises(ValueError, match="input_deviation"):
        EncoderSettings(input_deviation=(1.0, 0.0, 1.0))


@pytest.mark.parametrize(("stem_width", "width", "last"), [(4, 8, False), (8, 4, False), (8, 8, True)])
def test_narrow_networks_keep_off_the_layout_whose_gradients_write_past_their_memory(
    stem_width: int, width: int, last: bool
) -> None:
    """A fault of oneDNN on processors with AVX2 alone: `test_train_reliability.py` crashed there."""
    torch.manual_seed(0)
    network = ResNet(block="basic", blocks=(1,), widths=(width,), strides=(2,), stem_width=stem_width, outputs=3)
    layouts = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size == (1, 1):
            module.register_forward_hook(
                lambda _, inputs, __: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert layouts == [last]
