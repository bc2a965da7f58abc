"""What tells the pixels of a face from those of things before it: measures per pixel, and how far each is believed.

Colour alone cannot decide: cloth is explained by the wrong light as well as skin by the right one, and hands have the
colour of faces. So several witnesses are heard. Each is a number per pixel, computed from a photo, a reconstruction and
the last mask; their weighed sum is the log-odds that the face is seen there. Of the piece of the photo that a pixel
belongs to some are heard, too (`focus.fit.pieces`). The weights come from logistic regressions on photos of which the
truth is known, in the states that fits with such weights lead to, and are set between them (docs/log.md); they are 31
numbers, not a network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from focus import ops
from focus.data.skin import skin_mask
from focus.face import MorphableModel
from focus.fit.appearance import PixelFace
from focus.fit.pieces import HEARD, PIECE_NAMES, piece_witnesses
from focus.fit.structure import SIZE_OF_WINDOWS, blur, gaussian, local_correlation, surplus_of_edges

_BRIGHTNESS_FACTOR, _TINT_FACTOR = 0.7, 1.5
"""Shadows and wrinkles change the brightness of skin; hair, hands, cloth and glass change its tint, too."""
_GLOSS, _SHADOW = 0.1, 0.92
"""The reconstruction is matt and casts no shadows: up to this much white on top of it is the gloss of skin, and what is
darker by up to this factor is a fold or a shadow."""
_WIDE_WINDOW_FROM = 160
"""Image size in pixels from which the window of the smallest difference is 5 x 5 in place of 3 x 3."""

_REACH = 40.0
"""Unit of the distance from the features of the face, mm: hair and hats hide the border of a face, not the middle."""
_PARTS = ((slice(17, 27), 8.0), (slice(36, 48), 7.0))
"""Landmarks of brows and eyes, and the radius round each, mm."""
_UNSURE = ((slice(36, 48), 6.0), (slice(60, 68), 5.0), (slice(31, 36), 4.0))
"""The same of eyes, the inside of the mouth and nostrils."""

# Densities of colours: histograms with smooth bins, in coordinates of weighed brightness and tint.
_BIN, _BINS, _WIDTH = 0.08, (17, 26, 26), 0.05
_LOWEST = (-0.05, -1.0, -1.0)
_TINT_AXES = ((2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))
_UNKNOWN_DENSITY = 1 / (1.21 * 1.0 * 0.6)
"""Of the colours of an occluder that nothing is known of: about one over the volume of all colours."""
_UNKNOWN_SHARE, _FEW_PIXELS = 0.2, 30.0
_LEAST_NOISE = 0.025


def vertex_fields(model: MorphableModel) -> Tensor:
    """What is known of places of the face before a photo is seen, by vertex.

    Returns:
        ``[V, 4]``: distance from the features of the face, in units of 40 mm, at most 1.5; factor on the noise there (1
        to 2), since eyes, nostrils and the inside of the mouth are painted rather than modelled: gaze, lashes, teeth
        and tongue differ from any reconstruction, and are the face's own all the same; how near brows and eyes are,
        0 to 1 each.
    """
    mean, marks = model.mean_shape, model.mean_shape[model.landmarks68]
    outer = torch.cdist(mean, marks[17:]).amin(dim=1) / _REACH
    noise = torch.ones_like(outer)
    for part, radius in _UNSURE:
        noise += _nearness(mean, marks[part], radius)
    near = [_nearness(mean, marks[part], radius) for part, radius in _PARTS]
    return torch.stack([outer.clamp(max=1.5), noise.clamp(max=2), *near], dim=1)


def _nearness(vertices: Tensor, marks: Tensor, radius: float) -> Tensor:
    return torch.exp(-0.5 * (torch.cdist(vertices, marks).amin(dim=1) / radius).square())


NAMES = (
    "constant",
    "colors",
    "tint",
    "correlation 4",
    "correlation 8",
    "correlation 14",
    "structure of the photo",
    "structure of the face",
    "surplus of edges",
    "colors of this photo",
    "colors of skin",
    "brow",
    "darker brow",
    "eye",
    "colors at the eye",
    "border",
    "colors round the face",
    "colors near by",
    "colors that fit",
    "colors of this photo that fit",
    *PIECE_NAMES,
)
"""Of the witnesses. The numbers are widths of windows in pixels at a crop of 224."""
_HEARD_OF_PIECES = [NAMES.index(name) for name in HEARD]
WEIGHTS = (
    *(0.24, 0.56, -0.49, 0.32, -0.14, 1.61, 1.93, -0.87, -0.18),
    *(1.38, 0.63, 1.21, 0.43, 0.90, 1.18, 0.24, 0.80, 0.15, 1.78, -0.56),
    *(-0.26, -0.33, 0.77, 0.71, -1.29, 0.54, -0.50, -0.49, -0.96, -0.22, -0.65),
)
"""How far each is believed."""


def witnesses(face: PixelFace, colors: Tensor, visible: Tensor) -> Tensor:
    """What each witness says, in numbers of the order of 1; the more, the likelier is the face.

    Args:
        face: by pixel, with the fields of `vertex_fields`.
        colors: ``[B, 3, P]``, of B reconstructions.
        visible: ``[B, P]`` in [0, 1], the last masks.

    Returns:
        ``[B, 31, P]``, in the order of `NAMES`.
    """
    border, noise, brow, eye = face.fields
    photo = face.photo
    distance = _distance(face, colors)
    codes = _codes(photo)
    seen, hidden = _densities(codes, visible), _densities(codes, 1 - visible)
    likelihood = _likelihood_ratio(distance / noise, visible, noise, hidden)
    rest = photo - colors
    brightness = rest.mean(dim=1)
    tint = (rest - brightness[:, None]).norm(dim=1)
    usual_tint = _root_mean_square(tint.clamp(max=0.15), visible).clamp(min=0.01)
    usual_brightness = _root_mean_square(brightness.clamp(-0.2, 0.2), visible).clamp(min=0.02)
    fine, wide = (local_correlation(face, colors, window)[0] for window in (4.0, 14.0))
    middle, in_photo, in_face = local_correlation(face, colors, 8.0)
    of_this_photo = (((seen + 0.05) / (hidden + 0.05)).log() / 4).clamp(-1, 1)
    all_of_them = (
        torch.ones_like(distance),
        likelihood,
        (tint / usual_tint / 3).clamp(max=2),
        fine,
        middle,
        wide,
        in_photo.expand_as(distance),
        in_face,
        surplus_of_edges(face, colors),
        of_this_photo,
        (2 * skin_mask(photo[None, :, None])[0, 0] - 1).expand_as(distance),
        brow.expand_as(distance),
        brow * (-brightness / usual_brightness).clamp(0, 4),
        eye.expand_as(distance),
        eye * likelihood,
        border.square().expand_as(distance),
        _colors_of_surroundings(face, visible, 20.0),
        _colors_of_surroundings(face, visible, 8.0),
        likelihood.clamp(min=0),  # how well a colour fits and how badly are weighed apart
        of_this_photo.clamp(min=0),
    )
    pixels = torch.stack(all_of_them, dim=1)
    return torch.cat([pixels, piece_witnesses(face, colors, pixels[:, _HEARD_OF_PIECES])], dim=1)


def _root_mean_square(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.clamp(min=1e-3)
    return ((weight * values.square()).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)).sqrt()


def _distance(face: PixelFace, colors: Tensor) -> Tensor:
    """Smallest difference to the reconstruction in a small window, as in Eq. (1) of the paper: ``[B, P]``."""
    window = 5 if face.size >= _WIDE_WINDOW_FROM else 3
    photo = face.image(_weigh_tint(face.photo)).expand(len(colors), -1, -1, -1).contiguous()
    return face.of(ops.neighbor_min(photo, face.image(_weigh_tint(_relit(colors, face.photo))), window=window))


def _relit(reconstruction: Tensor, photo: Tensor) -> Tensor:
    """The reconstruction with the gloss or the shadow that brings it closest to the photo."""
    seen, expected = (colors.mean(dim=-2, keepdim=True) for colors in (photo, reconstruction))
    gloss = (seen - expected).clamp(0, _GLOSS)
    shadow = (seen / expected.clamp(min=0.01)).clamp(_SHADOW, 1)
    return torch.where(seen > expected, reconstruction + gloss, reconstruction * shadow)


def _weigh_tint(colors: Tensor) -> Tensor:
    """Scales the brightness and the tint of colours ``[..., 3, P]``."""
    grey = colors.mean(dim=-2, keepdim=True)
    return _BRIGHTNESS_FACTOR * grey + _TINT_FACTOR * (colors - grey)


def _likelihood_ratio(distance: Tensor, visible: Tensor, noise: Tensor, hidden: Tensor) -> Tensor:
    """Logarithm of the density of a colour if the face is seen over that if it is not, ``[B, P]``, scaled.

    A face has a normal distribution round its reconstruction, as wide as the differences are where it is trusted. What
    is before it has the colours that are distrusted in this photo, or any.

    Args:
        distance: ``[B, P]``, in units of `noise`.
        visible: ``[B, P]``.
        noise: ``[P]``, factors.
        hidden: ``[B, P]``, densities of the colours that are distrusted.
    """
    weight = visible.clamp(min=1e-4)
    width = ((weight * distance.clamp(max=0.2).square()).sum(dim=1) / weight.sum(dim=1) / 3).sqrt()
    width = width.clamp(min=_LEAST_NOISE)[:, None]
    explained = -1.5 * math.log(2 * math.pi) - 3 * (width * noise).log() - 0.5 * (distance / width).square()
    count = (1 - visible).sum(dim=1, keepdim=True)
    known = (1 - _UNKNOWN_SHARE) * count / (count + _FEW_PIXELS)
    return ((explained - (known * hidden + (1 - known) * _UNKNOWN_DENSITY).log()) / 8).clamp(-1.5, 1.5)


def _codes(colors: Tensor) -> Tensor:
    """The bin of each colour ``[3, P]`` in the histograms of `_densities`: ``[P]`` int64."""
    brightness = _BRIGHTNESS_FACTOR * 3**0.5 * colors.mean(dim=0, keepdim=True)
    coordinates = torch.cat([brightness, _TINT_FACTOR * colors.new_tensor(_TINT_AXES) @ colors])
    code = torch.zeros_like(colors[0], dtype=torch.int64)
    for values, lowest, count in zip(coordinates, _LOWEST, _BINS, strict=True):
        code = code * count + ((values - lowest) / _BIN).floor().long().clamp(0, count - 1)
    return code


def _densities(codes: Tensor, weight: Tensor) -> Tensor:
    """Density of each colour among weighed pixels, by a smoothed histogram: ``[B, P]``.

    Args:
        codes: ``[P]``.
        weight: ``[B, P]``.
    """
    weight = weight + 1e-6
    bins = weight.new_zeros(len(weight), math.prod(_BINS)).index_add_(1, codes, weight)
    kernel = gaussian(_WIDTH / _BIN, weight)
    smooth, half = bins.view(-1, 1, *_BINS), len(kernel) // 2
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[axis + 2], padding[axis] = len(kernel), half
        smooth = F.conv3d(smooth, kernel.view(shape), padding=padding)
    return smooth.flatten(1)[:, codes] / (weight.sum(dim=1, keepdim=True) * _BIN**3)


def _colors_of_surroundings(face: PixelFace, visible: Tensor, window: float) -> Tensor:
    """Whether a pixel has the colour of the face near by, rather than that of what is near by but off the face.

    Hair and hats go on outside of a face.

    Args:
        face: by pixel.
        visible: ``[B, P]``.
        window: standard deviation in pixels at a crop of 224.

    Returns:
        ``[B, P]`` in [-1, 1]; 0 far from the outline.
    """
    sigma = window * face.size / SIZE_OF_WINDOWS
    photo = _weigh_tint(face.target.flatten(1)).view_as(face.target)
    inside = face.image(torch.ones_like(face.photo[0]))
    outside = 1 - F.max_pool2d(inside[None], 3, stride=1, padding=1)[0]
    amount, sums = blur(outside, sigma), blur(photo * outside, sigma)
    beyond = (photo - sums / (amount + 1e-6)).norm(dim=0)  # [S, S]
    trust = face.image(visible)  # [B, S, S]
    near = blur(trust, sigma)
    mean = blur(photo * trust[:, None], sigma) / (near[:, None] + 1e-6)
    within = (photo - mean).norm(dim=1)  # [B, S, S]
    share = (2 * torch.minimum(amount, near)).clamp(max=1)
    return face.of(share * ((beyond - within) / 0.15).clamp(-1, 1))
