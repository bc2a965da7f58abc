"""ArcFace's IResNet-50 as recognition features, from weights that the user has (Deng et al. 2019)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focus.nets.alignment import ARCFACE_SIZE, align_faces, template_points
from focus.nets.features import soft_support
from focus.nets.weights import load_weights, read_weights

_EMBEDDING_SIZE = 512


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        # Stages after the first change the width and halve the resolution at once, so the stride alone tells.
        shortcut = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = nn.Sequential(*shortcut) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        residual: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return residual + shortcut


class IResNet(nn.Module):
    """The "improved" residual network of insightface, with its parameter names.

    Args:
        blocks: number of blocks in its four stages; (3, 4, 14, 3) is IResNet-50.
    """

    def __init__(self, blocks: Sequence[int] = (3, 4, 14, 3)) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Block(before, width, 2), *(_Block(width, width, 1) for _ in range(count - 1)))
            for before, width, count in zip((widths[0], *widths), widths, blocks, strict=False)
        )
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1] * (ARCFACE_SIZE // 16) ** 2, _EMBEDDING_SIZE)
        self.features = nn.BatchNorm1d(_EMBEDDING_SIZE)

    def first_stage(self, images: Tensor) -> Tensor:
        """``[B, 3, 112, 112]`` -> ``[B, 64, 56, 56]``, after `layer1`."""
        return self.layer1(self.prelu(self.bn1(self.conv1(images))))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, 112, 112]`` RGB in [-1, 1] -> ``[B, 512]``, not normalised."""
        x = self.bn2(self.layer4(self.layer3(self.layer2(self.first_stage(images)))))
        return self.features(self.fc(torch.flatten(x, 1)))  # type: ignore[no-any-return]


class ArcFaceFeatures(nn.Module):
    """ArcFace features (see `focus.nets.features.FeatureExtractor`): always in evaluation, its weights never trained.

    Args:
        network: the recognition network.
        description: what it is, for logs and reports.
    """

    # A position after layer1 sees 23 x 23 pixels of the 112 x 112 image; the inner half carries most of the weight (Luo
    # et al. 2016).
    _SUPPORT_MARGIN = 5

    template: Tensor

    def __init__(self, network: IResNet, description: str = "ArcFace IResNet-50") -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.description = description
        template = template_points(ARCFACE_SIZE, like=torch.zeros((), dtype=torch.float32, device="cpu"))
        self.register_buffer("template", template, persistent=False)  # [5, 2]
        self.train(False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ArcFaceFeatures:
        """Reads insightface's IResNet-50.

        Args:
            path: ``.safetensors``, or a state dict written by `torch.save`, such as ``backbone.pth`` of
                ``ms1mv3_arcface_r50_fp16``. Half precision is converted.

        Raises:
            FocusError: the file cannot be read, or is not an IResNet-50.
        """
        weights = read_weights(path)
        network = IResNet()
        load_weights(network, weights, source=os.fspath(path))
        return cls(network, f"ArcFace IResNet-50 ({os.path.basename(os.fspath(path))})")

    def train(self, mode: bool = True) -> ArcFaceFeatures:
        """Stays in evaluation, whatever `mode` is: the statistics belong to the weights."""
        del mode
        return super().train(False)

    def feature_map(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S]`` RGB in [0, 1] -> ``[B, 64, 56, 56]``, after `layer1`, of the image resized to 112 x 112.

        Not aligned by landmarks: the crops already show faces in the template's size (within 11%), these features do
        not depend on place, and in this way a position means the same place of the photo and of the render.
        """
        size = (ARCFACE_SIZE, ARCFACE_SIZE)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.network.first_stage(2 * images - 1)

    def feature_support(self, mask: Tensor) -> Tensor:
        """``[B, 1, S, S]`` -> ``[B, 1, 56, 56]``: how far the mask fills 12 x 12 pixels of 112 x 112."""
        size = (ARCFACE_SIZE, ARCFACE_SIZE)
        if mask.shape[2:] != size:
            mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=True)
        return soft_support(mask, self._SUPPORT_MARGIN)

    def embed(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """``[B, 3, S, S]`` and ``[B, 68, 2]`` pixels -> ``[B, 512]`` of unit length, for the aligned face."""
        aligned = align_faces(images, landmarks, template=self.template)
        return F.normalize(self.network(2 * aligned - 1), dim=1)
