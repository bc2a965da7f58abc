"""The morphable model that ships as code: no download, no form to sign, the same face on every machine.

It is a template of analytic fields (`template_surface`, `template_mesh`), anthropometric and Gaussian-process bases
(`template_shapes`) and painted colour (`template_albedo`). It looks like a face and moves like one, but nobody was
scanned for it: use a model that was learned from scans where accuracy for real people counts.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from focus.face import template_albedo, template_shapes
from focus.face import template_surface as surface
from focus.face.model import MorphableModel
from focus.face.template_mesh import SKIN, Detail, Indices, TemplateMesh, build_mesh
from focus.face.template_surface import Array

IDENTITY_COUNT, EXPRESSION_COUNT, ALBEDO_COUNT = 80, 46, 80
_VERSION = 1
"""Counts up whenever the meaning of a coefficient changes, so that checkpoints notice."""


def _half_landmarks() -> list[tuple[int, int, tuple[float, float, float], int, int]]:
    """(index, index of its mirror image, position in mm at the image's left, lip side, lid side); sides 0 for any."""
    inner, outer = surface.EYE_INNER_X, surface.EYE_OUTER_X

    def lid(x: float, upper: bool) -> tuple[float, float, float]:
        at = np.array([x])
        opening = surface.lid_openings(at)[0 if upper else 1]
        return -x, float((surface.eye_line(at) + opening)[0]), 84.0

    def lip(x: float, part: float) -> tuple[float, float, float]:
        """`part` of the height of the upper (positive) or lower (negative) vermilion from the mouth line."""
        at = np.array([x])
        upper, lower = surface.lip_heights(at)
        return -x, float((surface.mouth_line(at) + part * (upper if part > 0 else lower))[0]), 100.0

    jaw = [
        (-71, 34, 17),
        (-71, 15, 19),
        (-68.5, -5, 22),
        (-63.5, -25, 26),
        (-56.5, -43, 33),
        (-46, -58, 46),
        (-33, -69.5, 63),
        (-17, -77, 80),
        (0, -79.5, 86),
    ]
    brows = [(-54, 49), (-47, 54.5), (-37, 56), (-25, 54.5), (-13, 50)]
    bridge = [(0, 36), (0, 25), (0, 13.5), (0, 1.5)]
    base = [(-13, -8.5), (-6.5, -12), (0, -12.5)]
    entries: list[tuple[int, int, tuple[float, float, float], int, int]] = []
    entries += [(i, 16 - i, p, 0, 0) for i, p in enumerate(jaw)]
    entries += [(17 + i, 26 - i, (x, y, 95.0), 0, 0) for i, (x, y) in enumerate(brows)]
    entries += [(27 + i, 27 + i, (x, y, 115.0), 0, 0) for i, (x, y) in enumerate(bridge)]
    entries += [(31 + i, 35 - i, (x, y, 103.0), 0, 0) for i, (x, y) in enumerate(base)]
    at = np.array([outer, inner])
    line = surface.eye_line(at)
    entries += [(36, 45, (-outer, float(line[0]), 78.0), 0, 0), (39, 42, (-inner, float(line[1]), 84.0), 0, 0)]
    entries += [(37, 44, lid(37.0, True), 0, 1), (38, 43, lid(26.0, True), 0, 1)]
    entries += [(41, 46, lid(37.0, False), 0, -1), (40, 47, lid(26.0, False), 0, -1)]
    corner = float(surface.mouth_line(np.array([surface.MOUTH_CORNER_X]))[0])
    entries += [(48, 54, (-surface.MOUTH_CORNER_X, corner, 90.0), 0, 0)]
    entries += [(49, 53, lip(15.0, 1.0), 1, 0), (50, 52, lip(6.2, 1.0), 1, 0), (51, 51, lip(0.0, 1.0), 1, 0)]
    entries += [(59, 55, lip(15.0, -1.0), -1, 0), (58, 56, lip(7.5, -1.0), -1, 0), (57, 57, lip(0.0, -1.0), -1, 0)]
    entries += [(60, 64, lip(22.5, 1e-6), 1, 0), (61, 63, lip(10.0, 1e-6), 1, 0), (62, 62, lip(0.0, 1e-6), 1, 0)]
    entries += [(67, 65, lip(10.0, -1e-6), -1, 0), (66, 66, lip(0.0, -1e-6), -1, 0)]
    return entries


def _landmarks(mesh: TemplateMesh) -> Indices:
    """``[68]`` vertex indices, mirrored pairs exactly."""
    landmarks = np.zeros(68, np.int64)
    outer = mesh.part == SKIN
    for index, twin, position, lip_side, lid_side in _half_landmarks():
        wanted = np.array(position)
        # On the front x and y decide; at the jaw all three.
        weight = np.array([1.0, 1.0, 1.0 if index <= 16 else 0.02])
        allowed = outer & (mesh.points[:, 0] <= 1e-6)
        if position[0] == 0:
            allowed &= np.abs(mesh.points[:, 0]) < 1e-6
        if lip_side:
            allowed &= mesh.lip_side == lip_side
        if lid_side:
            allowed &= mesh.lid_side == lid_side
        distance = (((mesh.points - wanted) * weight) ** 2).sum(1)
        vertex = int(np.where(allowed, distance, np.inf).argmin())
        landmarks[index], landmarks[twin] = vertex, mesh.mirror[vertex]
    return landmarks


ORIGIN = np.array([0.0, 0.0, 92.0])
"""What the model calls (0, 0, 0), in the axes of the template: near the middle of the visible face, so that a turned
head stays in the middle of the image."""


@functools.lru_cache(maxsize=1)
def template_landmarks() -> Array:
    """``[68, 3]`` mm, the landmarks of the mean face in the axes of the template."""
    mesh = build_mesh("full")
    points: Array = mesh.points[_landmarks(mesh)]
    return points


@functools.lru_cache(maxsize=2)
def _arrays(detail: Detail) -> dict[str, np.ndarray]:
    """Everything of the model, as arrays; built once per process."""
    mesh, canonical = build_mesh(detail), build_mesh("small")
    mean = template_albedo.mean_albedo(mesh)
    landmarks = _landmarks(mesh)
    return {
        "mean_shape": mesh.points - ORIGIN,
        "identity_basis": template_shapes.identity_basis(mesh, canonical, IDENTITY_COUNT).astype(np.float32),
        "expression_basis": template_shapes.expression_basis(mesh, canonical, EXPRESSION_COUNT).astype(np.float32),
        "mean_albedo": mean,
        "albedo_basis": template_albedo.albedo_basis(mesh, canonical, mean, ALBEDO_COUNT).astype(np.float32),
        "faces": mesh.faces,
        "uv": mesh.uv,
        "landmarks68": landmarks,
        # NoW: outer and inner corner of the right eye, inner and outer of the left, nose base, mouth corners.
        "landmarks7": landmarks[[36, 39, 42, 45, 33, 48, 54]],
    }


def build_procedural_model(detail: Detail = "full") -> MorphableModel:
    """The procedural face with all of its components.

    Args:
        detail: "full", about 33,000 vertices, or "small", about 2,500. The same coefficients mean the same face in
            both.
    """
    # Copies: what somebody does to a model must not be in the next one.
    arrays: dict[str, Any] = {
        key: torch.from_numpy(np.array(value, order="C")) for key, value in _arrays(detail).items()
    }
    return MorphableModel(
        **arrays,
        name=f"FOCUS procedural face ({detail})",
        licence="that of FOCUS: it is part of the code",
        expression_prior="normal",
        recipe=f"procedural {_VERSION} {detail}",
    )
