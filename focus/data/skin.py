"""Skin by its colour alone: the detector that the paper compares with."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class _Mixture(NamedTuple):
    """Four Gaussians over (Y, Cb, Cr)."""

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    determinants: tuple[float, ...]
    """Of the covariances."""
    inverses: tuple[tuple[tuple[float, ...], ...], ...]
    """Of the covariances."""

    def density(self, colors: Tensor) -> Tensor:
        """``[..., 3]`` to ``[...]``."""
        total = torch.zeros_like(colors[..., 0])
        for weight, mean, determinant, inverse in zip(*self, strict=True):
            centred = colors - colors.new_tensor(mean)
            distance = ((centred @ colors.new_tensor(inverse)) * centred).sum(dim=-1)
            total = total + weight / math.sqrt((2 * math.pi) ** 3 * determinant) * torch.exp(-distance / 2)
        return total


# The numbers of Deng et al., "Accurate 3D Face Reconstruction with Weakly-Supervised Learning", CVPRW 2019, as their
# released code has them.
_PRIOR = 0.8
_SKIN = _Mixture(
    weights=(0.24063933, 0.16365987, 0.26034665, 0.33535415),
    means=(
        (113.71862, 103.39613, 164.08226),
        (150.19858, 105.18467, 155.51428),
        (183.92976, 107.62468, 152.7182),
        (114.90524, 113.59782, 151.38217),
    ),
    determinants=(5692842.5, 5851930.5, 2329131.0, 1585971.0),
    inverses=(
        (
            (0.0019472069, 0.0020450759, -0.00060243998),
            (0.0020450759, 0.017700525, 0.0051420014),
            (-0.00060243998, 0.0051420014, 0.008130895),
        ),
        (
            (0.0027110141, 0.001103699, 0.0023122299),
            (0.001103699, 0.010707724, 0.010742856),
            (0.0023122299, 0.010742856, 0.017481629),
        ),
        (
            (0.0048026871, 0.00022935172, 0.0077668377),
            (0.00022935172, 0.011729696, 0.0081661865),
            (0.0077668377, 0.0081661865, 0.025374353),
        ),
        (
            (0.0011989699, 0.0022453172, -0.0010748957),
            (0.0022453172, 0.047758564, 0.020332102),
            (-0.0010748957, 0.020332102, 0.024502251),
        ),
    ),
)
_NOT_SKIN = _Mixture(
    weights=(0.1279107, 0.31130761, 0.34245777, 0.21832393),
    means=(
        (99.200851, 112.07533, 140.20602),
        (110.91392, 125.52969, 130.19237),
        (129.75864, 129.96107, 126.96808),
        (112.29587, 128.85121, 129.05431),
    ),
    determinants=(458703648.0, 6466488.0, 90611376.0, 133097.63),
    inverses=(
        (
            (0.00085371657, 0.00071197288, 0.00023958916),
            (0.00071197288, 0.002593562, 0.00076557708),
            (0.00023958916, 0.00076557708, 0.0015042332),
        ),
        (
            (0.0002465015, 0.00045542428, 0.00015019422),
            (0.00045542428, 0.026412144, 0.018419769),
            (0.00015019422, 0.018419769, 0.037497383),
        ),
        (
            (0.00037054974, 0.0003814676, 0.00040408765),
            (0.0003814676, 0.0085505722, 0.0079136286),
            (0.00040408765, 0.0079136286, 0.010982352),
        ),
        (
            (0.00013709733, 0.00051228428, 0.0001277743),
            (0.00051228428, 0.28237113, 0.1052837),
            (0.0001277743, 0.1052837, 0.23468947),
        ),
    ),
)

# ITU-R BT.601, of RGB in [0, 1] to Y in [16, 235], Cb and Cr in [16, 240].
_LUMA_AND_CHROMA = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.0, 128.0, 128.0)


def skin_mask(images: Tensor) -> Tensor:
    """Probability that a pixel is skin, by its colour: a naive Bayes detector of two Gaussian mixtures.

    Args:
        images: ``[B, 3, H, W]`` RGB in [0, 1], floating point.

    Returns:
        ``[B, 1, H, W]`` in [0, 1], same dtype; no gradient passes.

    Raises:
        ValueError: another shape or type.
    """
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"skin_mask: images: expected floating point [B, 3, H, W], got {images.dtype} {list(images.shape)}"
        )
    # In double precision: the densities of far colours are smaller than float32 can tell from zero.
    colors = images.detach().clamp(0, 1).double().permute(0, 2, 3, 1)
    colors = colors @ colors.new_tensor(_LUMA_AND_CHROMA).T + colors.new_tensor(_OFFSET)
    skin, other = _PRIOR * _SKIN.density(colors), (1 - _PRIOR) * _NOT_SKIN.density(colors)
    total = skin + other
    return torch.where(total > 0, skin / total.clamp(min=1e-300), 0.0)[:, None].to(images.dtype)
