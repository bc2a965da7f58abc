"""Residual networks with the parameter names of torchvision, so that its ImageNet weights load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focus.errors import FocusError
from focus.nets.weights import load_weights, read_weights

Block = Literal["basic", "bottleneck"]
Normalisation = Literal["batch", "group"]

_MOST_GROUPS = 8
_FEWEST_CHANNELS_PER_GROUP = 4


def normalisation_layer(channels: int, kind: Normalisation) -> nn.Module:
    """BatchNorm, or GroupNorm with the most groups (at most 8) that divide the channels and hold at least 4 of them."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        groups = next(
            (
                g
                for g in range(_MOST_GROUPS, 1, -1)
                if channels % g == 0 and channels // g >= _FEWEST_CHANNELS_PER_GROUP
            ),
            1,
        )
        return nn.GroupNorm(groups, channels)
    raise FocusError(f"normalisation: expected 'batch' or 'group', got {kind!r}")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, fig. 5 left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, kind: Normalisation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = normalisation_layer(width, kind)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = normalisation_layer(width, kind)
        self.downsample = _shortcut(inputs, width, stride, kind)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is on the 3x3 one, as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, kind: Normalisation) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = normalisation_layer(width, kind)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = normalisation_layer(width, kind)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = normalisation_layer(outputs, kind)
        self.downsample = _shortcut(inputs, outputs, stride, kind)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int, kind: Normalisation) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), normalisation_layer(outputs, kind))


class ResNet(nn.Module):
    """A residual network `[B, 3, H, W]` -> `[B, outputs]` whose output layer `fc` starts at zero.

    The default arguments are ResNet-50 (He et al. 2016) as torchvision has it: 25,557,032 parameters.

    BatchNorm or GroupNorm: BatchNorm fits pretrained weights and large batches. Its batch statistics are noisy for
    fewer than about 8 images, and what was learned with them runs with other, averaged ones at test time; GroupNorm
    treats every image alike in training and test and at any batch size. `frozen_normalisation` keeps BatchNorm on its
    stored statistics also in training (fine-tuning on few photos).

    Args:
        block: ``"basic"`` or ``"bottleneck"`` (output channels are 4 times the width).
        blocks: number of blocks per stage.
        widths: width per stage.
        strides: stride of the first block of each stage.
        stem_width: channels of the first convolution.
        stem_kernel: its side, odd; it has stride 2.
        stem_pool: whether a 3x3 max pool of stride 2 follows.
        pool_size: side P of the grid that the last features are averaged to; `fc` sees P*P*channels values. With 1 it
            sees no places.
        normalisation: ``"batch"`` or ``"group"``.
        frozen_normalisation: never update or use batch statistics.
        outputs: width of `fc`.
    """

    def __init__(
        self,
        *,
        block: Block = "bottleneck",
        blocks: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[int] = (1, 2, 2, 2),
        stem_width: int = 64,
        stem_kernel: int = 7,
        stem_pool: bool = True,
        pool_size: int = 1,
        normalisation: Normalisation = "batch",
        frozen_normalisation: bool = False,
        outputs: int = 1000,
    ) -> None:
        super().__init__()
        if not len(blocks) == len(widths) == len(strides) or not blocks:
            raise FocusError(
                "ResNet: blocks, widths and strides: expected the same number of stages, got "
                f"{tuple(blocks)}, {tuple(widths)}, {tuple(strides)}"
            )
        if block not in ("basic", "bottleneck"):
            raise FocusError(f"ResNet: block: expected 'basic' or 'bottleneck', got {block!r}")
        if stem_kernel % 2 == 0:
            raise FocusError(f"ResNet: stem_kernel: expected an odd number, got {stem_kernel}")
        block_type = BasicBlock if block == "basic" else Bottleneck
        self.conv1 = nn.Conv2d(3, stem_width, stem_kernel, stride=2, padding=stem_kernel // 2, bias=False)
        self.bn1 = normalisation_layer(stem_width, normalisation)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem_pool else nn.Identity()
        self.stages: list[str] = []
        channels = stem_width
        for index, (count, width, stride) in enumerate(zip(blocks, widths, strides, strict=True)):
            layers = []
            for position in range(count):
                layers.append(block_type(channels, width, stride if position == 0 else 1, normalisation))
                channels = width * block_type.expansion
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(pool_size)
        self.fc = nn.Linear(channels * pool_size**2, outputs)
        self.frozen_normalisation = frozen_normalisation
        # With fewer than eight channels, oneDNN on processors with AVX2 alone writes past its memory in this layout, in
        # the gradient of a shortcut with a stride (torch 2.13).
        self.channels_last = min(stem_width, *widths) >= 8
        """Computes in this layout: 10-25% faster than contiguous on the CPU, and what tensor cores want."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]``, normalised as the weights expect -> ``[B, outputs]``."""
        x = images.contiguous(memory_format=torch.channels_last) if self.channels_last else images.contiguous()
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        outputs: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return outputs

    def train(self, mode: bool = True) -> ResNet:
        """`nn.Module.train`; BatchNorm stays in evaluation when the normalisation is frozen."""
        super().train(mode)
        if mode and self.frozen_normalisation:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def load_imagenet_weights(self, path: str | os.PathLike[str]) -> None:
        """Loads torchvision's weights of the same architecture, all but the output layer, which becomes zero.

        Args:
            path: ``.safetensors``, or a state dict written by `torch.save` (``.pth``), for example torchvision's
                ``resnet50-0676ba61.pth``.

        Raises:
            FocusError: the file cannot be read, or its names or shapes differ; the network is then unchanged.
        """
        load_weights(self, read_weights(path), source=os.fspath(path), keep=("fc.weight", "fc.bias"))
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
