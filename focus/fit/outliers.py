"""The pixels of a face that its reconstruction does not explain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.fit.appearance import PixelFace
from focus.fit.witnesses import WEIGHTS, witnesses

_LARGEST_EVIDENCE = 4.0
_SHARE_OF_RULE, _SHARE_OF_NETWORK, _LARGEST_HEARD = 0.5, 0.5, 4.0
"""How far the witnesses and a network are believed, where both are heard."""
_RADII = (1, 2, 4)
_REACH = max(_RADII)
_FEW_PIXELS = 80
"""Image size below which the largest of the radii is left out."""
_COLOR_SIGMA = 0.08
_COUPLING = 0.35
_ROUNDS = 12
_SURE, _SMALLEST_OUTLIER = 0.95, 0.001


class Neighborhood:
    """Which neighbours of a pixel pull it to their label: those of like colour in the photo.

    Args:
        target: ``[1, 3, S, S]``, the photo.
        face: ``[1, 1, S, S]``, 1 where the face is drawn.
    """

    def __init__(self, target: Tensor, face: Tensor) -> None:
        self._face = face
        radii = _RADII if target.shape[-1] >= _FEW_PIXELS else _RADII[:-1]
        self._shifts = [(y * r, x * r) for r in radii for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
        self._affinity = []
        for shift in self._shifts:
            squared = (_shifted(target, shift) - target).square().sum(dim=1, keepdim=True)
            self._affinity.append(torch.exp(-squared / (2 * _COLOR_SIGMA**2)) * _shifted(face, shift))

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
            label = F.pad((2 * probability - 1) * self._face, (_REACH,) * 4)
            pull = torch.zeros_like(evidence)
            for (y, x), affinity in zip(self._shifts, self._affinity, strict=True):
                pull.addcmul_(affinity, _window(label, y, x))
            probability = torch.sigmoid(evidence + _COUPLING * pull) * self._face
        return probability


def visible_probability(
    face: PixelFace,
    colors: Tensor,
    visible: Tensor,
    neighborhood: Neighborhood,
    strictness: float = 0.0,
    heard: Tensor | None = None,
) -> Tensor:
    """The probability that a pixel shows the face, by all witnesses and by its neighbours.

    Args:
        face: by pixel.
        colors: ``[B, 3, P]``, of B reconstructions.
        visible: ``[B, P]``, the last masks.
        neighborhood: of this photo and this face.
        strictness: log-odds that are held against every pixel.
        heard: ``[P]``, log-odds by one more witness, a network; None: there is none.

    Returns:
        ``[B, P]`` in [0, 1].
    """
    weights = colors.new_tensor(WEIGHTS)
    evidence = torch.einsum("w,bwp->bp", weights, witnesses(face, colors, visible))
    if heard is not None:
        evidence = _SHARE_OF_RULE * evidence + _SHARE_OF_NETWORK * heard.clamp(-_LARGEST_HEARD, _LARGEST_HEARD)
    evidence = (evidence - strictness).clamp(-_LARGEST_EVIDENCE, _LARGEST_EVIDENCE)
    return face.of(neighborhood.settle(face.image(evidence)[:, None])[:, 0])


def without_specks(visible: Tensor, face: Tensor) -> Tensor:
    """A mask without its small holes: highlights, moles, lashes.

    Args:
        visible: ``[1, 1, S, S]`` in [0, 1].
        face: ``[1, 1, S, S]``, 1 where the face is drawn.

    Returns:
        `visible`, but 1 where a piece that is not surely seen (below 0.95, in one with its eight neighbours) hides less
        than 0.1% of the face.
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


def _shifted(images: Tensor, shift: tuple[int, int]) -> Tensor:
    """The pixels that are (y, x) away; 0 past the border."""
    return _window(F.pad(images, (_REACH,) * 4), *shift)


def _window(padded: Tensor, y: int, x: int) -> Tensor:
    height, width = padded.shape[-2] - 2 * _REACH, padded.shape[-1] - 2 * _REACH
    return padded[..., _REACH + y : _REACH + y + height, _REACH + x : _REACH + x + width]
