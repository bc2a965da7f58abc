"""Where to begin: which part of a photo is the face, before light and mask are known.

Light and mask explain each other: a first light that is learnt from a face mask finds the skin to be the occluder, and
stays there. So several parts of the photo are tried, each as if it alone were the face, and the one is kept whose
reconstruction agrees best with the photo.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.fit.appearance import PixelFace, fit_appearance
from focus.fit.outliers import Neighborhood, visible_probability
from focus.fit.structure import local_correlation
from focus.fit.witnesses import NAMES, witnesses

_SEGMENTS, _SEGMENT_ROUNDS = 6, 10
_BRIGHTNESS_FACTOR, _TINT_FACTOR, _PLACE_FACTOR = 2.0, 6.0, 0.3
"""Of brightness, tint and place (in image widths), by which segments are told apart."""
_ROUNDS = 6
_LEAST_TRUST = 1e-3
_STRICTNESS = 1.0
"""Log-odds against the face: what a start leaves out is taken back later, what it lets in stays in."""
_WINDOW = 6.0
_COLOR_WEIGHT, _SKIN_WEIGHT, _VOTE_WEIGHT = 0.3, 0.15, 0.5


def find_start(face: PixelFace, target: Tensor, drawn: Tensor, marks: Tensor) -> Tensor:
    """The probability that a pixel shows the face, by the best of several starts.

    Args:
        face: by pixel.
        target: ``[1, 3, S, S]``, the photo.
        drawn: ``[1, 1, S, S]``, 1 where the face is drawn.
        marks: ``[68, 2]``, landmarks in pixels.

    Returns:
        ``[1, 1, S, S]``.
    """
    visible = torch.cat([segments(face), _regions(face, marks)])
    neighborhood = Neighborhood(target, drawn)
    for _ in range(_ROUNDS):
        colors = fit_appearance(face, visible + _LEAST_TRUST).colors
        visible = visible_probability(face, colors, visible, neighborhood, _STRICTNESS)
    return face.image(visible[agreement(face, colors, visible).argmax()])[None, None]


def agreement(face: PixelFace, colors: Tensor, visible: Tensor) -> Tensor:
    """How well reconstructions agree with the photo and their masks with each other, ``[B]``; the more, the better.

    Neither the likelihood of the colours nor the area that is explained tells a right mask from an inverted one: cloth
    is explained by the wrong light as well as skin by the right one. But the structure of the photo is that of a face
    only where the face is, and from most starts the right mask is found.

    Args:
        face: by pixel.
        colors: ``[B, 3, P]``.
        visible: ``[B, P]``.
    """
    count = visible.sum(dim=1).clamp(min=1)
    heard = dict(zip(NAMES, witnesses(face, colors, visible).unbind(1), strict=True))
    structure = local_correlation(face, colors, _WINDOW)[0]
    told = structure + _COLOR_WEIGHT * heard["colors"] + _SKIN_WEIGHT * heard["colors of skin"]
    seen = (visible > 0.5).to(visible)
    both, area = seen @ seen.T, seen.sum(dim=1)
    votes = (both / (area[:, None] + area - both).clamp(min=1)).mean(dim=1)
    return (told * visible).sum(dim=1) / count + _VOTE_WEIGHT * votes


def segments(face: PixelFace) -> Tensor:
    """Parts of like colour of the photo where the face is drawn, by k-means without chance: ``[6, P]`` in {0, 1}."""
    grey = face.photo.mean(dim=0, keepdim=True)
    x, y = face.pixels % face.size, torch.div(face.pixels, face.size, rounding_mode="floor")
    place = torch.stack([x, y]).to(grey) / face.size
    points = torch.cat([_BRIGHTNESS_FACTOR * grey, _TINT_FACTOR * (face.photo - grey), _PLACE_FACTOR * place]).T
    centers = points.mean(dim=0, keepdim=True)
    for _ in range(_SEGMENTS):  # each the point that is furthest from all before; the first, the mean, is dropped
        centers = torch.cat([centers, points[torch.cdist(points, centers).amin(dim=1).argmax()][None]])
    centers = centers[1:]
    for _ in range(_SEGMENT_ROUNDS):
        member = F.one_hot(torch.cdist(points, centers).argmin(dim=1), _SEGMENTS).to(points)
        count = member.sum(dim=0)[:, None]
        centers = torch.where(count > 0, member.T @ points / count.clamp(min=1), centers)
    return F.one_hot(torch.cdist(points, centers).argmin(dim=1), _SEGMENTS).T.to(points)


def _regions(face: PixelFace, marks: Tensor) -> Tensor:
    """The middle of the face, its upper and lower, left and right half: ``[5, P]``."""
    x, y = face.pixels % face.size, torch.div(face.pixels, face.size, rounding_mode="floor")
    nose = marks[27:31, 0].mean()
    middle = 1 - face.fields[0].clamp(max=1)
    halves = (y < marks[29, 1], y > marks[33, 1], x < nose, x > nose)
    return torch.stack([middle, *(half.to(middle) for half in halves)])
