"""The pixels of a face that its reconstruction does not explain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.fit.appearance import PixelFace
from focus.fit.witnesses import WEIGHTS, witnesses

_LARGEST_EVIDENCE = 4.0
_RADII = (1, 2, 4)
_FEW_PIXELS = 80
"""Image size below which the largest of the radii is left out."""
_COLOR_SIGMA = 0.08
_COUPLING = 0.35
_ROUNDS = 12
_SURE, _SMALLEST_OUTLIER = 0.95, 0.01


class Neighborhood:
    """Which neighbours of a pixel pull it to their label: those of like colour in the photo.

    Args:
        target: ``[1, 3, S, S]``, the photo.
        face: ``[B, 1, S, S]``, 1 where the face is drawn; B = 1 or that of the evidence.
    """

    def __init__(self, target: Tensor, face: Tensor) -> None:
        self._face = face
        self._radii = _RADII if target.shape[-1] >= _FEW_PIXELS else _RADII[:-1]
        self._affinity = [_affinity(target, radius) * _neighbors(face, radius) for radius in self._radii]

    def settle(self, evidence: Tensor) -> Tensor:
        """The probability of each pixel given all of the evidence: a pairwise random field, by mean-field iteration.

        Kraehenbuehl and Koltun (NIPS 2011), with a few rings of neighbours in place of all pixels.

        Args:
            evidence: ``[B, 1, S, S]``, log-odds of each pixel.

        Returns:
            ``[B, 1, S, S]`` in [0, 1]; 0 outside of the face.
        """
        probability = torch.sigmoid(evidence) * self._face
        for _ in range(_ROUNDS):
            label = (2 * probability - 1) * self._face
            pull = torch.zeros_like(evidence)
            for radius, weight in zip(self._radii, self._affinity, strict=True):
                pull += (weight * _neighbors(label, radius)).sum(dim=1, keepdim=True)
            probability = torch.sigmoid(evidence + _COUPLING * pull) * self._face
        return probability


def visible_probability(face: PixelFace, colors: Tensor, visible: Tensor, neighborhood: Neighborhood) -> Tensor:
    """The probability that a pixel shows the face, by all witnesses and by its neighbours.

    Args:
        face: by pixel.
        colors: ``[B, 3, P]``, of B reconstructions.
        visible: ``[B, P]``, the last masks.
        neighborhood: of this photo and this face.

    Returns:
        ``[B, P]`` in [0, 1].
    """
    weights = torch.tensor(WEIGHTS).to(colors)
    evidence = torch.einsum("w,bwp->bp", weights, witnesses(face, colors, visible))
    evidence = evidence.clamp(-_LARGEST_EVIDENCE, _LARGEST_EVIDENCE)
    return face.of(neighborhood.settle(face.image(evidence)[:, None])[:, 0])


def without_specks(visible: Tensor, face: Tensor) -> Tensor:
    """A mask without its small holes: highlights, moles, lashes.

    Args:
        visible: ``[1, 1, S, S]`` in [0, 1].
        face: ``[1, 1, S, S]``, 1 where the face is drawn.

    Returns:
        `visible`, but 1 where a piece that is not surely seen (below 0.95, in one with its eight neighbours) hides less
        than 1% of the face.
    """
    unsure = (face > 0) & (visible < _SURE)
    labels = torch.arange(1, unsure.numel() + 1, dtype=torch.float64, device=face.device).view_as(visible) * unsure
    while True:  # the largest number of a piece spreads over it
        spread = F.max_pool2d(labels, 3, stride=1, padding=1) * unsure
        if torch.equal(spread, labels):
            break
        labels = spread
    pieces = labels.long()
    hidden = torch.bincount(pieces.flatten(), weights=(visible < 0.5).flatten().double())[pieces]
    return torch.where(unsure & (hidden < _SMALLEST_OUTLIER * face.sum()), 1.0, visible)


def _neighbors(values: Tensor, radius: int) -> Tensor:
    """The eight pixels at a distance: ``[B, C, H, W]`` to ``[B, 8 C, H, W]``, channel by channel; 0 past the border."""
    batch, channels, height, width = values.shape
    columns = F.unfold(values, 3, dilation=radius, padding=radius).view(batch, channels, 9, height, width)
    return torch.cat([columns[:, :, :4], columns[:, :, 5:]], dim=2).reshape(batch, channels * 8, height, width)


def _affinity(target: Tensor, radius: int) -> Tensor:
    """``[1, 8, H, W]``, in [0, 1]: how alike in colour a pixel and its neighbours are."""
    around = _neighbors(target, radius).view(1, 3, 8, *target.shape[2:])
    squared = (around - target[:, :, None]).square().sum(dim=1)
    return torch.exp(-squared / (2 * _COLOR_SIGMA**2))
