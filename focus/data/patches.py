"""Patches laid over photos so that a network learns to do without parts of a face: CutMix and Cutout.

DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017; Yun et al., "CutMix:
regularization strategy to train strong classifiers with localizable features", ICCV 2019. Here they are a cheap
stand-in for occluders: the loss compares with the photo without its patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from focus.conform import conform
from focus.data.sampling import PATCH, stream
from focus.errors import FocusError

PatchKind = Literal["cutmix", "cutout"]

_GREY = 0.5


@dataclass(frozen=True)
class PatchSettings:
    """How large patches are, and how often there is one."""

    probability: float = 0.75
    """Share of the photos that get one."""
    area: tuple[float, float] = (0.02, 0.3)
    """Share of the picture that a patch covers before it is cut at the border, from and to."""
    aspect: tuple[float, float] = (0.5, 2.0)
    """Width over height, from and to; drawn evenly on a logarithmic scale."""

    def __post_init__(self) -> None:
        conform(self, "data.patches")
        if not 0 <= self.probability <= 1:
            raise FocusError(f"patches: probability: expected a number in [0, 1], got {self.probability}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise FocusError(f"patches: area: expected 0 < from <= to <= 1, got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise FocusError(f"patches: aspect: expected 0 < from <= to, got {self.aspect}")


def patched(
    images: Tensor, kind: PatchKind, *, seed: int, first_index: int, settings: PatchSettings | None = None
) -> Tensor:
    """Photos with a patch over some of them; number i of a seed always gets the same patch.

    Args:
        images: ``[B, 3, H, W]`` in [0, 1].
        kind: cutout: a patch of middle grey; cutmix: what the next photo of the batch has in that place.
        seed: names the patches; 0 <= seed < 2**64.
        first_index: number of the first photo, 0 or more.
        settings: sizes.

    Returns:
        ``[B, 3, H, W]``, a copy. No gradient is lost: patches are constants.

    Raises:
        FocusError: cutmix with a batch of one, which has no other photo.
    """
    if kind == "cutmix" and len(images) == 1:
        raise FocusError("cutmix: expected batches of at least 2 photos in each process, got 1; raise batch_size")
    settings = settings or PatchSettings()
    height, width = images.shape[2:]
    source = images.roll(-1, dims=0) if kind == "cutmix" else torch.full_like(images, _GREY)
    result = images.clone()
    for number in range(len(images)):
        rng = stream(seed, first_index + number, PATCH)
        chosen, area, aspect = rng.random(), rng.uniform(*settings.area), math.exp(rng.uniform(*_logs(settings.aspect)))
        x, y = rng.random() * width, rng.random() * height
        if chosen >= settings.probability:
            continue
        half_width, half_height = (math.sqrt(area * height * width * a) / 2 for a in (aspect, 1 / aspect))
        rows = slice(max(0, round(y - half_height)), max(0, round(y + half_height)))
        columns = slice(max(0, round(x - half_width)), max(0, round(x + half_width)))
        result[number, :, rows, columns] = source[number, :, rows, columns]
    return result


def _logs(limits: tuple[float, float]) -> tuple[float, float]:
    return math.log(limits[0]), math.log(limits[1])
