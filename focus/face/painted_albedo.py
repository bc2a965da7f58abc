"""A synthetic albedo for models that have shape only, painted round their landmarks.

The model's mean is bent onto the procedural face so that the 68 landmarks meet, and takes its colours: skin, brows,
lips, eyes. No colour of anybody was measured; use it to try a model, not to measure skin.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from focus import ops
from focus.errors import FocusError
from focus.face import template_albedo
from focus.face import template_surface as surface
from focus.face.model import MorphableModel, component_count
from focus.face.procedural import template_landmarks
from focus.face.template_mesh import EYEBALL, SKIN, Indices, TemplateMesh, build_mesh
from focus.face.template_surface import Array, smoothstep

PAINT_VERSION = 3
"""Counts up whenever the meaning of a coefficient changes, so that checkpoints notice."""

_SMOOTHING = 0.02
"""Relative weight of smoothness against meeting the landmarks, some of which are not on the same spot in both faces."""

_FLAT = 1e-3
"""Landmarks whose smallest extent is less than this part of their largest lie in a plane."""

_VIEWS, _SPAN, _RESOLUTION = 64, 80.0, 160
"""Number of directions from which the nose is looked at, and width of what is seen, mm and pixels."""
_DEPTH_SLACK = 0.7
"""What lies this far behind the visible surface, mm, still belongs to it: slopes change by that much within a pixel."""
_HIDDEN, _HIDDEN_PIT = (0.6, 0.8), (0.55, 0.7)
"""Part of the views that do not see a point: at the bottom of a crease, and inside a nostril. Of coarse models, whose
nostrils are shallow pits, less is enough in the right place."""
_UNDER_LIDS = 0.45
"""Of the light, what is left on parts of an eyeball that only other expressions show."""


def _bend(source: Array, target: Array, points: Array) -> Array:
    """Moves points by the smooth map (splines of kernel |r| with an affine part) that takes source to target."""
    n = len(source)
    distance = np.linalg.norm(source[:, None] - source[None], axis=-1)
    affine = np.concatenate((np.ones((n, 1)), source), axis=1)
    # -|r| is conditionally positive definite, so that the smoothing term has the same sign on the diagonal.
    smooth = _SMOOTHING * distance.mean() * np.eye(n)
    system = np.block([[-distance + smooth, affine], [affine.T, np.zeros((4, 4))]])
    weights = np.linalg.solve(system, np.concatenate((target, np.zeros((4, 3)))))
    reach = -np.linalg.norm(points[:, None] - source[None], axis=-1)
    result: Array = reach @ weights[:n] + np.concatenate((np.ones((len(points), 1)), points), axis=1) @ weights[n:]
    return result


def _components(faces: Indices, count: int) -> Indices:
    """A label per vertex: the smallest vertex index of its connected part."""
    labels: Indices = np.arange(count)
    while True:
        lowest = labels[faces].min(axis=1)
        updated = labels.copy()
        for corner in range(3):
            np.minimum.at(updated, faces[:, corner], lowest)
        updated = updated[updated]
        if (updated == labels).all():
            return labels
        labels = updated


def _as_template(bent: Array, faces: Indices, landmarks68: Indices) -> TemplateMesh:
    """The bent model with the attributes that painting needs."""
    labels = _components(faces, len(bent))
    skin = np.bincount(labels[landmarks68], minlength=len(bent)).argmax()
    part = np.full(len(bent), SKIN)
    for label in np.unique(labels):
        members = labels == label
        centre = np.abs(bent[members].mean(0) * (1, 1, 0)) - (surface.EYE_X, surface.EYE_ROW, 0)
        if label != skin and members.sum() > 20 and np.linalg.norm(centre) < 12:
            part[members] = EYEBALL
    side = np.where(bent[:, 1] >= surface.mouth_line(bent[:, 0]), 1.0, -1.0)
    lid = np.where(bent[:, 1] >= surface.eye_line(bent[:, 0]), 1.0, -1.0)
    zero = np.zeros(len(bent))
    inside = _nostrils(bent, faces) * (part == SKIN)
    return TemplateMesh(bent, faces, np.zeros((len(bent), 2)), part, side, lid, inside, zero, np.arange(len(bent)))


def _nostrils(bent: Array, faces: Indices) -> Array:
    """``[V]``, 1 inside the nostrils, where there are any, falling to 0 at their rims.

    Noses differ in where their base lies between the landmarks round it, by more than the size of a nostril: painted at
    the place that it has in the procedural face, it ends up on the upper lip. What shows a nostril is that the surface
    round it hides it from nearly all sides.
    """
    inside = np.zeros(len(bent))
    x, y, z = bent.T
    near = np.flatnonzero((np.abs(x) < 16) & (y > -14) & (y < 25) & (z > 80))
    if len(near):
        hidden = _hidden_part(bent, faces, near)
        pit = surface.nostril(bent[near]) * smoothstep(*_HIDDEN_PIT, hidden)
        inside[near] = np.maximum(smoothstep(*_HIDDEN, hidden), pit)
    return inside


def _light_under_lids(mesh: TemplateMesh) -> Array:
    """``[V]``, the part of the light from in front that reaches a point: lids and brows shade the eyes; 1 elsewhere.

    Harmonics of the normal know no shadows. Without these, eyeballs outshine every face and stare.
    """
    reached = np.ones(len(mesh.points))
    for side in (-1, 1):
        eye = np.flatnonzero((mesh.part == EYEBALL) & (side * mesh.points[:, 0] > 0))
        if len(eye):
            reached[eye] = np.maximum(1 - _hidden_part(mesh.points, mesh.faces, eye), _UNDER_LIDS)
    return reached


def _hidden_part(points: Array, faces: Indices, indices: Indices) -> Array:
    """For each of some neighbouring vertices the part of all views from the front half that do not see it, [0, 1].

    Args:
        points: ``[V, 3]`` mm.
        faces: ``[F, 3]``.
        indices: ``[N]``, the vertices.
    """
    # A spiral of directions towards the viewer that are evenly spread over the half sphere.
    number = np.arange(_VIEWS) + 0.5
    depth, angle = number / _VIEWS, np.pi * (1 + 5**0.5) * number
    radius = np.sqrt(1 - depth**2)
    towards = np.stack((radius * np.cos(angle), radius * np.sin(angle), depth), axis=1)
    up = np.cross(towards, (1.0, 0.0, 0.0))
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    axes = np.stack((np.cross(up, towards), up, -towards), axis=1)  # [views, 3, 3]
    local = points - points[indices].mean(0)
    placed = np.einsum("nij,vj->nvi", axes, local)  # parallel projection; the last coordinate is the depth
    placed[..., :2] = placed[..., :2] * (_RESOLUTION / _SPAN) + (_RESOLUTION - 1) / 2
    placed[..., 2] += 2 * _SPAN
    around = (np.linalg.norm(local, axis=1) < _SPAN / 2)[faces].all(axis=1)
    fragments = ops.rasterize(
        torch.from_numpy(placed).float(), torch.from_numpy(faces[around]), (_RESOLUTION, _RESOLUTION)
    )
    surface_depth = torch.where(fragments.face_index >= 0, fragments.depth, torch.inf).numpy()
    column, row = np.rint(placed[:, indices, :2]).astype(int).clip(0, _RESOLUTION - 1).transpose(2, 0, 1)
    nearest = surface_depth[np.arange(_VIEWS)[:, None], row, column]
    hidden: Array = (placed[:, indices, 2] > nearest + _DEPTH_SLACK).mean(axis=0)
    return hidden


def paint_albedo(model: MorphableModel, components: int) -> tuple[Tensor, Tensor]:
    """Mean ``[V, 3]`` and basis ``[components, V, 3]`` of a synthetic albedo for the geometry of `model`.

    Args:
        model: with 68 landmarks; eyeballs are recognised as parts of their own behind the lids.
        components: pigments of the procedural face first (melanin, haemoglobin, ...), then a Gaussian process on the
            mesh.

    Raises:
        FocusError: the landmarks are not those of a face: they lie in one plane; or no number of components.
    """
    components = component_count("synthetic albedo", components)
    points = model.mean_shape.detach().cpu().numpy().astype(np.float64)
    faces = model.faces.cpu().numpy().astype(np.int64)
    landmarks = model.landmarks68.cpu().numpy()
    extent = np.linalg.svd(points[landmarks] - points[landmarks].mean(0), compute_uv=False)
    if extent[2] <= _FLAT * extent[0]:
        raise FocusError(
            f"{model.name}: landmarks68: expected points of a face, got points that all lie in one plane or are the "
            "same; are they the numbers of the vertices at the 68 iBUG points?"
        )
    canonical = build_mesh("small")
    bent = _bend(points[landmarks], template_landmarks(), points)
    mesh = _as_template(bent, faces, landmarks)
    # The paint is a function of the front view: it fades towards the back of the head.
    front = smoothstep(-5.0, 30.0, bent[:, 2])[:, None]
    painted = template_albedo.mean_albedo(mesh)
    mean = template_albedo.SKIN_COLOR + (painted - template_albedo.SKIN_COLOR) * front
    mean *= _light_under_lids(mesh)[:, None]
    basis = template_albedo.albedo_basis(mesh, canonical, mean, components)
    return torch.from_numpy(mean).float().to(model.mean_shape.device), torch.from_numpy(basis).float().to(
        model.mean_shape.device
    )
