"""The pixels of a face that its reconstruction does not explain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus import ops
from focus.face import MorphableModel

_BRIGHTNESS_FACTOR, _TINT_FACTOR = 0.7, 1.5
"""Shadows and wrinkles change the brightness of skin; hair, hands, cloth and glass change its tint, too."""
_GLOSS, _SHADOW = 0.1, 0.92
"""The reconstruction is matt and casts no shadows: up to this much white on top of it is the gloss of skin, and what is
darker by up to this factor is a fold or a shadow."""
_LARGEST_EVIDENCE = 4.0
_WIDE_WINDOW_FROM = 160
"""Image size in pixels from which the window of the smallest difference is 5 x 5 in place of 3 x 3."""

_RADII = (1, 2, 4)
_COLOR_SIGMA = 0.08
_COUPLING = 0.35
_ROUNDS = 12
_SURE, _SMALLEST_OUTLIER = 0.95, 0.01

_UNSURE = ((slice(36, 48), 6.0), (slice(60, 68), 5.0), (slice(31, 36), 4.0))
"""Landmarks of the eyes, of the inside of the mouth and of the nostrils, and the radius round each, mm."""
_INNER_LOG_ODDS, _OUTER_LOG_ODDS = 2.0, -1.5
_REACH = 40.0


def sigma_factor(model: MorphableModel) -> Tensor:
    """By how much the noise is larger at each vertex: ``[V, 1]``, from 1 to 2.

    Eyes, nostrils and the inside of the mouth are painted rather than modelled: gaze, lashes, teeth and tongue differ
    from any reconstruction, and are the face's own all the same.
    """
    mean = model.mean_shape
    factor = torch.ones_like(mean[:, :1])
    for landmarks, radius in _UNSURE:
        distance = torch.cdist(mean, mean[model.landmarks68[landmarks]]).amin(dim=1, keepdim=True)
        factor += torch.exp(-0.5 * (distance / radius).square())
    return factor.clamp(max=2)


def prior_log_odds(model: MorphableModel) -> Tensor:
    """Log-odds a priori that a vertex is seen, ``[V, 1]``: hair and hats hide the border of a face, not the middle."""
    mean = model.mean_shape
    distance = torch.cdist(mean, mean[model.landmarks68[17:]]).amin(dim=1, keepdim=True)
    return _INNER_LOG_ODDS + (_OUTER_LOG_ODDS - _INNER_LOG_ODDS) * (distance / _REACH).clamp(max=1)


def visible_probability(
    target: Tensor,
    reconstruction: Tensor,
    face: Tensor,
    sigma: float | Tensor,
    cutoff: float,
    log_odds: float | Tensor = 0.0,
) -> Tensor:
    """The probability that a pixel shows the face: a pairwise random field, by mean-field iteration.

    The evidence of a pixel is that of `ops.outlier_robust_loss`, a Gaussian of `sigma` against a constant that it meets
    at `cutoff` sigma, for the smallest difference to the reconstruction in a small window, as in Eq. (1) of the paper.
    Neighbours of like colour in the photo pull each other to one label (Kraehenbuehl and Koltun, NIPS 2011, with three
    rings of neighbours in place of all pixels).

    Args:
        target: ``[1, 3, S, S]``.
        reconstruction: ``[1, 3, S, S]``.
        face: ``[1, 1, S, S]``, 1 where the face is drawn.
        sigma: standard deviation of a colour difference; a number or ``[1, 1, S, S]``.
        cutoff: in units of sigma.
        log_odds: a priori; a number or ``[1, 1, S, S]``.

    Returns:
        ``[1, 1, S, S]`` in [0, 1]; 0 outside of the face.
    """
    with torch.no_grad():
        window = 5 if target.shape[-1] >= _WIDE_WINDOW_FROM else 3
        distance = ops.neighbor_min(
            _weigh_tint(target * face), _weigh_tint(_relit(reconstruction, target) * face), window=window
        )
        evidence = 0.5 * (cutoff**2 - (distance[:, None] / sigma).square()) + log_odds
        evidence = evidence.clamp(-_LARGEST_EVIDENCE, _LARGEST_EVIDENCE)
        affinity = [_affinity(target, face, radius) for radius in _RADII]
        probability = torch.sigmoid(evidence) * face
        for _ in range(_ROUNDS):
            label = (2 * probability - 1) * face
            pull = torch.zeros_like(evidence)
            for radius, weight in zip(_RADII, affinity, strict=True):
                pull += (weight * _neighbors(label, radius)).sum(dim=1, keepdim=True)
            probability = torch.sigmoid(evidence + _COUPLING * pull) * face
        return probability


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


def _relit(reconstruction: Tensor, target: Tensor) -> Tensor:
    """The reconstruction with the gloss or the shadow that brings it closest to the photo."""
    seen, expected = (image.mean(dim=1, keepdim=True) for image in (target, reconstruction))
    gloss = (seen - expected).clamp(0, _GLOSS)
    shadow = (seen / expected.clamp(min=0.01)).clamp(_SHADOW, 1)
    return torch.where(seen > expected, reconstruction + gloss, reconstruction * shadow)


def _weigh_tint(image: Tensor) -> Tensor:
    """Scales the brightness and the tint of colours."""
    grey = image.mean(dim=1, keepdim=True)
    return _BRIGHTNESS_FACTOR * grey + _TINT_FACTOR * (image - grey)


def _neighbors(values: Tensor, radius: int) -> Tensor:
    """The eight pixels at a distance: ``[1, C, H, W]`` to ``[1, 8 C, H, W]``, channel by channel; 0 past the border."""
    channels, height, width = values.shape[1:]
    columns = F.unfold(values, 3, dilation=radius, padding=radius).view(channels, 9, height, width)
    return torch.cat([columns[:, :4], columns[:, 5:]], dim=1).reshape(1, channels * 8, height, width)


def _affinity(target: Tensor, face: Tensor, radius: int) -> Tensor:
    """``[1, 8, H, W]``, in [0, 1]: how alike in colour a pixel and its neighbours are; 0 for those off the face."""
    around = _neighbors(target, radius).view(1, 3, 8, *target.shape[2:])
    squared = (around - target[:, :, None]).square().sum(dim=1)
    return torch.exp(-squared / (2 * _COLOR_SIGMA**2)) * _neighbors(face, radius)
