"""The part of a head model that a photo of a face can be compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from focus.face import MorphableModel
from focus.face.contour import JAW_COUNT

_BROWS = slice(17, 27)
_CHIN, _NOSE_BASE = 8, 33
_FOREHEAD = 0.425
"""Height of the region above the brows, relative to the distance from chin to brows. The hairline is at about 0.5."""
_MARGIN = 0.03
"""How far the region reaches below the chin, relative to its distance from the nose; less towards the ears."""
_DEPTH_SLACK = (0.03, 0.15)
"""How far behind the jaw landmarks the region reaches, in widths of the face: at the ears, and under the chin."""
_SLOPE = 1.5
"""How much further it reaches with the distance from the jaw."""


def face_region(model: MorphableModel) -> Tensor:
    """The vertices of the face proper, from the jaw to the hairline, without scalp, ears and neck.

    Hair covers most scalps and clothes most necks: a reconstruction has nothing to learn from them, and a fraction of
    hidden skin that counts them says little. Models of the face alone keep nearly all of their vertices.

    Returns:
        ``[V]`` bool; all 68 landmarks are in it.
    """
    mean = model.mean_shape.double()
    points = mean[model.landmarks68]
    downness = torch.linspace(0, torch.pi, JAW_COUNT, dtype=mean.dtype, device=mean.device).sin()  # 0 ears, 1 chin
    jaw = points[:JAW_COUNT]
    jaw = jaw + _MARGIN * downness[:, None] * (jaw - points[_NOSE_BASE])
    left, right = jaw[0], jaw[-1]
    center, width = (left + right) / 2, right[0] - left[0]
    brow, chin = points[_BROWS, 1].mean(), points[_CHIN, 1]
    top = brow + _FOREHEAD * (brow - chin)
    # The outline: the jaw, closed above by half an ellipse through its ends.
    angle = torch.linspace(0, torch.pi, 33, dtype=mean.dtype, device=mean.device)[1:-1]
    forehead = torch.stack([center[0] + width / 2 * angle.cos(), center[1] + (top - center[1]) * angle.sin()], dim=1)
    inside = _inside_polygon(mean[:, :2], torch.cat([jaw[:, :2], forehead]))
    # The surface turns away at the jaw: what lies further back than the nearest jaw landmark is ear or neck. Away from
    # the jaw it may lie deeper (the inside of the mouth), but not behind the ears.
    slack = _DEPTH_SLACK[0] + (_DEPTH_SLACK[1] - _DEPTH_SLACK[0]) * downness
    distance, nearest = torch.cdist(mean[:, :2], jaw[:, :2]).min(dim=1)
    deepest = (jaw[:, 2] - slack * width)[nearest] - _SLOPE * distance
    behind_ears = torch.minimum(left[2], right[2]) - _DEPTH_SLACK[0] * width
    region = inside & (mean[:, 2] >= torch.maximum(deepest, behind_ears))
    region[model.landmarks68] = True
    return region


def crop_model(model: MorphableModel, region: Tensor) -> MorphableModel:
    """The same model with the vertices of `region` only, and the faces all of whose corners are in it.

    Args:
        model: any; its coefficients keep their meaning.
        region: ``[V]`` bool, all 68 landmarks in it.
    """
    number = torch.cumsum(region, 0) - 1  # [V], new index of a vertex that stays
    faces = model.faces.long()
    return MorphableModel(
        mean_shape=model.mean_shape[region],
        identity_basis=model.identity_basis[:, region],
        expression_basis=model.expression_basis[:, region],
        mean_albedo=model.mean_albedo[region],
        albedo_basis=model.albedo_basis[:, region],
        faces=number[faces[region[faces].all(dim=1)]],
        landmarks68=number[model.landmarks68],
        name=f"{model.name}, face region",
        licence=model.licence,
        expression_prior=model.expression_prior,
    )


def _inside_polygon(points: Tensor, polygon: Tensor) -> Tensor:
    """Even-odd rule: ``[P, 2]`` in ``[N, 2]`` to ``[P]`` bool."""
    start, end = polygon, polygon.roll(-1, dims=0)
    x, y = points[:, :1], points[:, 1:]
    straddles = (start[:, 1] > y) != (end[:, 1] > y)  # [P, N]
    rise = torch.where(end[:, 1] == start[:, 1], 1.0, end[:, 1] - start[:, 1])
    crossing = start[:, 0] + (y - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    return (straddles & (x < crossing)).sum(dim=1) % 2 == 1
