"""A synthetic albedo for models that have shape only, painted round their landmarks.

The model's mean is bent onto the procedural face so that the 68 landmarks meet, and takes its colours: skin, brows,
lips, eyes. No colour of anybody was measured; use it to try a model, not to measure skin.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from focus.face import template_albedo
from focus.face import template_surface as surface
from focus.face.model import MorphableModel
from focus.face.procedural import template_landmarks
from focus.face.template_mesh import EYEBALL, SKIN, Indices, TemplateMesh, build_mesh
from focus.face.template_surface import Array, smoothstep

PAINT_VERSION = 1
"""Counts up whenever the meaning of a coefficient changes, so that checkpoints notice."""

_SMOOTHING = 0.02
"""Relative weight of smoothness against meeting the landmarks, some of which are not on the same spot in both faces."""


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
    inside = surface.nostril(bent) * (part == SKIN)
    return TemplateMesh(bent, faces, np.zeros((len(bent), 2)), part, side, lid, inside, zero, np.arange(len(bent)))


def paint_albedo(model: MorphableModel, components: int) -> tuple[Tensor, Tensor]:
    """Mean ``[V, 3]`` and basis ``[components, V, 3]`` of a synthetic albedo for the geometry of `model`.

    Args:
        model: with 68 landmarks; eyeballs are recognised as parts of their own behind the lids.
        components: pigments of the procedural face first (melanin, haemoglobin, ...), then a Gaussian process on the
            mesh.
    """
    points = model.mean_shape.detach().cpu().numpy().astype(np.float64)
    faces = model.faces.cpu().numpy().astype(np.int64)
    landmarks = model.landmarks68.cpu().numpy()
    canonical = build_mesh("small")
    bent = _bend(points[landmarks], template_landmarks(), points)
    mesh = _as_template(bent, faces, landmarks)
    # The paint is a function of the front view: it fades towards the back of the head.
    front = smoothstep(-5.0, 30.0, bent[:, 2])[:, None]
    painted = template_albedo.mean_albedo(mesh)
    mean = template_albedo.SKIN_COLOR + (painted - template_albedo.SKIN_COLOR) * front
    basis = template_albedo.albedo_basis(mesh, canonical, mean, components)
    return torch.from_numpy(mean).float().to(model.mean_shape.device), torch.from_numpy(basis).float().to(
        model.mean_shape.device
    )
