"""The unit and the axes in which a face model is: no format states them, and a face tells them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from focus.errors import FocusError
from focus.face.units import millimetres_per_unit

_EYES, _MOUTH, _NOSE_TIP = slice(36, 48), slice(48, 68), 30
_LEFT_CORNER, _RIGHT_CORNER = 36, 45
_FARTHEST = 20.0
"""Distances of the outer eye corners that a head with its shoulders is far from having, and a stray vertex exceeds."""
_ALIGNED = 0.8
"""Cosine of the angle to an axis, from which on a direction is along it."""
_EYES_TO_MOUTH = (0.4, 1.2)
_NOSE_IN_FRONT = 0.1
"""Distances of the outer eye corners, as `_EYES_TO_MOUTH`: of faces, they are about 0.7 and 0.4."""


class Frame(NamedTuple):
    """How positions and displacements of a file become ours."""

    unit: float
    """Millimetres."""
    axes: tuple[int, int, int]
    """Of the file, that are our x, y and z."""
    signs: tuple[float, float, float]
    """Of these."""
    notes: tuple[str, ...]
    """For the user, where something was converted."""

    def convert(self, vectors: Tensor) -> Tensor:
        """``[..., 3]`` of the file to millimetres in our axes."""
        if self.axes == (0, 1, 2) and self.signs == (1.0, 1.0, 1.0):
            return vectors * self.unit
        return vectors[..., list(self.axes)] * (vectors.new_tensor(self.signs) * self.unit)


def frame_of(
    path: Path,
    mean: Tensor,
    bases: dict[str, Tensor],
    landmarks68: Sequence[int] | Tensor,
    expected: float = 1.0,
) -> Frame:
    """Unit and axes of a face model.

    Args:
        path: of the model, for messages.
        mean: ``[V, 3]`` as in the file.
        bases: name -> ``[K, V, 3]`` as in the file.
        landmarks68: ``[68]`` vertices.
        expected: millimetres per unit of this format.

    Raises:
        FocusError: the unit is none that is known, vertices are where no face has any, or the face is mirrored.
    """
    unit, notes = millimetres_per_unit(path, mean, landmarks68, expected)
    points = mean[torch.as_tensor(landmarks68, dtype=torch.int64, device=mean.device)].double()
    eyes_apart = float((points[_RIGHT_CORNER] - points[_LEFT_CORNER]).norm())
    _check_extent(path, mean, bases, eyes_apart)
    axes, signs, turned = _axes(path, points, eyes_apart)
    return Frame(unit, axes, signs, (*notes, *turned))


def outward_faces(path: Path, vertices: Tensor, faces: Tensor) -> Tensor:
    """Faces counterclockwise seen from outside: turned round if most look towards the centre.

    Raises:
        FocusError: none has an area.
    """
    corners = vertices[faces.long()].double()
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = float((vertices.amax(0) - vertices.amin(0)).double().norm())
    # Not so for numbers that are not finite, which the model refuses.
    if bool((normals.norm(dim=1) <= 1e-12 * size**2).all()):
        raise FocusError(
            f"{path}: faces: expected triangles, got {len(faces)} without area; do they name three different vertices?"
        )
    away = corners.mean(1) - vertices.double().mean(0)
    return faces.flip(1) if float((normals * away).sum()) < 0 else faces


def _check_extent(path: Path, mean: Tensor, bases: dict[str, Tensor], eyes_apart: float) -> None:
    reach = _FARTHEST * eyes_apart
    extent = float((mean.amax(0).double() - mean.amin(0).double()).max())
    if math.isfinite(extent) and extent > reach:
        raise FocusError(
            f"{path}: its vertices are up to {extent:.4g} apart, and the outer corners of its eyes {eyes_apart:.4g}; "
            "expected a face, perhaps with its head and shoulders. Remove the vertices that are far away"
        )
    for name, basis in bases.items():
        farthest = float(basis.abs().max()) if basis.numel() else 0.0
        if math.isfinite(farthest) and farthest > reach:
            raise FocusError(
                f"{path}: {name}: moves a vertex by {farthest:.4g} at a coefficient of 1, and the outer corners of the "
                f"eyes are {eyes_apart:.4g} apart; expected displacements of a face, in the unit of its mean"
            )


def _axes(
    path: Path, points: Tensor, eyes_apart: float
) -> tuple[tuple[int, int, int], tuple[float, float, float], tuple[str, ...]]:
    """Which axes are ours, with which signs, and a note; ours, where the landmarks are not clearly those of a face."""
    ours = ((0, 1, 2), (1.0, 1.0, 1.0), ())
    up = points[_EYES].mean(0) - points[_MOUTH].mean(0)
    height = float(up.norm())
    if not _EYES_TO_MOUTH[0] * eyes_apart < height < _EYES_TO_MOUTH[1] * eyes_apart:
        return ours
    up = up / height
    right = points[_RIGHT_CORNER] - points[_LEFT_CORNER]
    right = right - (right @ up) * up
    width = float(right.norm())
    if width < _ALIGNED * eyes_apart:
        return ours
    right = right / width
    corners = (points[_RIGHT_CORNER] + points[_LEFT_CORNER]) / 2
    nose = points[_NOSE_TIP] - corners
    forward = torch.linalg.cross(right, up)
    depth = float(nose @ forward)
    below, aside = -float(nose @ up) / height, abs(float(nose @ right)) / eyes_apart
    if not (0 < below < 1 and aside < 0.25 and abs(depth) > _NOSE_IN_FRONT * eyes_apart):
        return ours
    if depth < 0:
        _refuse_mirrored(path)
    directions = torch.stack((right, up, forward))
    cosines, axes = directions.abs().max(dim=1)
    if float(cosines.min()) < _ALIGNED:
        return ours
    signs = directions.gather(1, axes[:, None])[:, 0].sign()
    x, y, z = axes.tolist()
    found = ((x, y, z), (float(signs[0]), float(signs[1]), float(signs[2])))
    if found == ours[:2]:
        return ours
    names = [f"{'-' if sign < 0 else '+'}{'xyz'[axis]}" for axis, sign in zip(*found, strict=True)]
    note = (
        f"{path}: by its landmarks68, this face looks along {names[2]} with {names[1]} up; it was turned to look along "
        "+z with +y up, as FOCUS has faces"
    )
    return (*found, (note,))


def _refuse_mirrored(path: Path) -> NoReturn:
    raise FocusError(
        f"{path}: the mean face is mirrored: seen from its front, landmark {_LEFT_CORNER} (outer corner of the eye on "
        f"the image's left) is on the right of landmark {_RIGHT_CORNER}. Mirror the model (change the sign of one axis "
        "in mean, identity and expression; x to the image's right, y up, z out of the face), or, if only the order of "
        "landmarks68 is mirrored, give them in the order of iBUG"
    )
