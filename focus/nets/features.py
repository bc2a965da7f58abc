"""Recognition features: what they promise, and the filter bank that needs no weights."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focus.isolation import own_state
from focus.nets.alignment import align_faces, template_points


class FeatureExtractor(Protocol):
    """What the losses ask of recognition features: constant weights, gradients for images, masks and landmarks."""

    description: str
    """What the features are, for logs and reports."""

    def feature_map(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S]`` RGB in [0, 1] -> ``[B, C, h, w]``."""

    def feature_support(self, mask: Tensor) -> Tensor:
        """``[B, 1, S, S]`` -> ``[B, 1, h, w]``, both in [0, 1]: how far each position of the map saw only the mask."""

    def embed(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """``[B, 3, S, S]`` and ``[B, 68, 2]`` pixels -> ``[B, D]`` of unit length, for the aligned face."""


def soft_support(mask: Tensor, margin: int) -> Tensor:
    """How far a mask fills the surroundings of each position of a feature map of half its resolution.

    Args:
        mask: ``[B, 1, H, W]`` in [0, 1], H and W even.
        margin: how far the window goes beyond the 2x2 pixels of a position; what lies outside the image does not count.

    Returns:
        ``[B, 1, H / 2, W / 2]``, 3 f^2 - 2 f^3 of the filled fraction f of the window: pushed towards 0 and 1, so that
        positions which saw mostly the mask count, with a gradient in between.
    """
    fraction = F.avg_pool2d(mask, 2 * margin + 2, stride=2, padding=margin, count_include_pad=False)
    return fraction.square() * (3 - 2 * fraction)


class FilterBank(nn.Module):
    """Oriented gradients at three scales and low-pass colour: features without weights, the default.

    On a pyramid of the luminance L = (R + G + B) / 3, halved twice: derivatives (3x3 Sobel) in 8 directions round the
    circle, their positive parts; divided by the local contrast sqrt(mean energy round the position + (0.03 L)^2 +
    floor^2), so that flat skin is not blown up to texture. The opponent colours R - G and (R + G) / 2 - B over L,
    averaged over 4x4 and over 8x8 pixels, positive and negative parts apart. In all 24 + 8 = 32 channels at half the
    resolution of the image. The recipe is that of SIFT and DAISY descriptors (Lowe 2004; Tola et al. 2010).

    A change of all light by one factor changes the features by the floor only (1/255 in L). Black areas have zero
    features.

    The embedding averages the map of the aligned 64x64 face in a 4x4 grid under a window that fades towards the
    corners, where the background is: 512 values, of unit length.
    """

    description = "weight-free filter bank (8 directions at 3 scales, low-pass colour; 32 channels, 512-d embedding)"

    SCALES = 3
    DIRECTIONS = 8
    EMBEDDING_GRID = 4
    ALIGNED_SIZE = 64

    _CONTRAST_THRESHOLD = 0.03
    _FLOOR = 1 / 255
    _SUPPORT_MARGIN = 4

    directions: Tensor
    opponents: Tensor
    template: Tensor
    embedding_window: Tensor

    @own_state(grad=False)
    def __init__(self) -> None:
        super().__init__()
        angles = 2 * math.pi * torch.arange(self.DIRECTIONS, dtype=torch.float32, device="cpu") / self.DIRECTIONS
        directions = torch.stack((angles.cos(), angles.sin()))[:, :, None, None]
        self.register_buffer("directions", directions, persistent=False)  # [2, 8, 1, 1]
        opponents = angles.new_tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
        self.register_buffer("opponents", opponents, persistent=False)  # [2, 3]
        side = self.ALIGNED_SIZE // 2
        template = template_points(self.ALIGNED_SIZE, like=angles)
        self.register_buffer("template", template, persistent=False)  # [5, 2]
        center = (template.mean(dim=0) - 0.5) / 2
        axis = torch.arange(side, dtype=angles.dtype, device=angles.device)
        squared = (axis[None, :] - center[0]).square() + (axis[:, None] - center[1]).square()
        window = torch.exp(-squared / (2 * (0.3 * side) ** 2))
        self.register_buffer("embedding_window", window, persistent=False)  # [32, 32]

    def feature_map(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` RGB in [0, 1] -> ``[B, 32, h, w]``, h = 4 ceil(H / 8): half the resolution."""
        images = _extend(images)
        size = (images.shape[2] // 2, images.shape[3] // 2)
        luminance = images.mean(dim=1, keepdim=True)
        parts = []
        for scale in range(self.SCALES):
            level = F.avg_pool2d(luminance, 2**scale)
            parts.append(self._normalise(_resample(self._edges(level), size), _resample(level, size)))
        for factor in (4, 8):
            average = F.avg_pool2d(images, factor)
            color = torch.einsum("oc,bchw->bohw", self.opponents, average)
            # Renders may be slightly negative where spherical harmonics undershoot.
            gray = average.mean(dim=1, keepdim=True)
            # Not clamp: what its gradient is at 0, in all that is black, differs between versions of torch.
            ratio = color / (torch.where(gray < 0, 0, gray) + self._FLOOR)
            parts.append(_resample(torch.cat((F.relu(ratio), F.relu(-ratio)), dim=1), size))
        return torch.cat(parts, dim=1)

    def _edges(self, level: Tensor) -> Tensor:
        """``[B, 1, H, W]`` -> ``[B, 8, H, W]``: positive parts of Sobel's derivative, per pixel, in 8 directions."""
        level = F.pad(level, (1, 1, 1, 1), mode="replicate")
        rows = (level[:, :, :-2] + 2 * level[:, :, 1:-1] + level[:, :, 2:]) / 8
        columns = (level[..., :-2] + 2 * level[..., 1:-1] + level[..., 2:]) / 8
        along_x, along_y = rows[..., 2:] - rows[..., :-2], columns[:, :, 2:] - columns[:, :, :-2]
        return F.relu(along_x * self.directions[0] + along_y * self.directions[1])

    def _normalise(self, edges: Tensor, level: Tensor) -> Tensor:
        energy = edges.square().sum(dim=1, keepdim=True)
        energy = F.avg_pool2d(energy, 5, stride=1, padding=2, count_include_pad=False)
        contrast = energy + (self._CONTRAST_THRESHOLD * level).square() + self._FLOOR**2
        return edges * contrast.rsqrt()

    def feature_support(self, mask: Tensor) -> Tensor:
        """``[B, 1, H, W]`` -> ``[B, 1, h, w]``: how far the mask fills the nearest 10 x 10 pixels (`soft_support`)."""
        return soft_support(_extend(mask), self._SUPPORT_MARGIN)

    def embed(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """``[B, 3, S, S]`` and ``[B, 68, 2]`` pixels -> ``[B, 512]`` of unit length; zeros for a black image."""
        maps = self.feature_map(align_faces(images, landmarks, self.ALIGNED_SIZE, template=self.template))
        pooled = F.adaptive_avg_pool2d(maps * self.embedding_window, self.EMBEDDING_GRID)
        return F.normalize(pooled.flatten(1), dim=1)


def _extend(images: Tensor) -> Tensor:
    """Repeats the last row and column until the sides divide by 8."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")


def _resample(values: Tensor, size: tuple[int, int]) -> Tensor:
    if values.shape[-2] > size[0]:
        return F.avg_pool2d(values, values.shape[-2] // size[0])
    return (
        values if values.shape[-2:] == size else F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    )
