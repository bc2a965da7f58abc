"""Where a predicted mesh lies on a scan: the seven landmarks first, then the scan's distance to the mesh."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from focus._optional import require
from focus.eval.shape import fit_similarity

Array = NDArray[np.float64]

_ITERATIONS = 100
_SMALLEST_STEP = 1e-9
"""Steps end where one moves no point by more than this share of the face's size: 1e-7 mm."""
_TOUCHING = 1e-9
"""Share of the face's size below which a point lies on the surface: its direction to it is rounding."""


class Placement(NamedTuple):
    """x -> scale R x + translation: from a prediction to its scan. Float64."""

    scale: float
    rotation: Array
    """``[3, 3]``, determinant 1."""
    translation: Array
    """``[3]`` mm."""

    def apply(self, points: Array) -> Array:
        """``[N, 3]`` of the prediction to ``[N, 3]`` mm of the scan."""
        placed: Array = self.scale * points @ self.rotation.T + self.translation
        return placed

    def inverse(self, points: Array) -> Array:
        """``[N, 3]`` mm of the scan to ``[N, 3]`` of the prediction."""
        back: Array = (points - self.translation) @ self.rotation / self.scale
        return back


class Closest(NamedTuple):
    """The nearest places of a surface to N points."""

    distances: Array
    """``[N]``."""
    points: Array
    """``[N, 3]``."""
    faces: NDArray[np.int64]
    """``[N]``."""


class Surface:
    """Triangles, in a tree of boxes (libigl), so that the nearest place to a point is found fast, and exactly.

    Args:
        vertices: ``[V, 3]`` finite.
        faces: ``[F, 3]``.
    """

    def __init__(self, vertices: Array, faces: NDArray[np.int64]) -> None:
        # Images are measured side by side, each with one thread; libigl would start one for each core of the machine.
        os.environ.setdefault("LIBIGL_NUM_THREADS", "1")
        igl = require("igl", extra="evaluate", purpose="measure distances of scans to meshes")
        self.vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        self.faces = np.ascontiguousarray(faces, dtype=np.int64)
        self._tree: Any = igl.AABB()
        self._tree.init(self.vertices, self.faces)

    def closest(self, points: Array) -> Closest:
        """The nearest place to each of ``[N, 3]``."""
        if len(points) == 0:
            return Closest(np.empty(0), np.empty((0, 3)), np.empty(0, np.int64))
        queries = np.ascontiguousarray(points, dtype=np.float64)
        squared, faces, places = self._tree.squared_distance(self.vertices, self.faces, queries)
        return Closest(np.sqrt(squared), places, faces)

    def normals(self, faces: NDArray[np.int64]) -> Array:
        """Unit normals ``[N, 3]`` of faces ``[N]``; zero where a face has no area."""
        a, b, c = (self.vertices[self.faces[faces, corner]] for corner in range(3))
        normals = np.cross(b - a, c - a)
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        unit: Array = normals / np.where(lengths > 0, lengths, 1)
        return unit


def face_region(landmarks: Array) -> tuple[Array, float]:
    """The ball in which a scan is measured: centre ``[3]`` and radius, by the challenge's rule.

    The centre is 0.3 of the way from the nose base up to the middle between the inner eye corners; the radius 1.4
    times the mean of the outer eye corners' distance and the nose's length.

    Args:
        landmarks: ``[7, 3]`` of the scan.
    """
    outer, inner, other_inner, other_outer, nose_base = landmarks[:5]
    bridge = (inner + other_inner) / 2
    centre = nose_base + 0.3 * (bridge - nose_base)
    radius = 1.4 * (np.linalg.norm(outer - other_outer) + np.linalg.norm(bridge - nose_base)) / 2
    return centre, float(radius)


def align_landmarks(predicted: Array, scan: Array, *, with_scale: bool) -> Placement:
    """The least-squares placement by corresponding landmarks, without reflection.

    Args:
        predicted: ``[7, 3]``, moved.
        scan: ``[7, 3]`` mm.
        with_scale: False: of scale 1 (the metrical protocol).
    """
    fitted = fit_similarity(torch.from_numpy(predicted)[None], torch.from_numpy(scan)[None])
    rotation = fitted.rotation[0].numpy()
    scale = float(fitted.scale[0]) if with_scale else 1.0
    # The best rotation does not depend on the scale; the translation maps mean to mean.
    return Placement(scale, rotation, scan.mean(axis=0) - scale * rotation @ predicted.mean(axis=0))


def refine(points: Array, surface: Surface, start: Placement, *, with_scale: bool) -> Placement:
    """Minimises the sum of squared distances of the points to the placed surface (Levenberg and Marquardt).

    The nearest places are found anew for each step, and a step is kept only if it lowers the true sum. By the envelope
    theorem the distance changes as if its nearest place were glued to the surface, so that the gradient is exact at
    edges and borders, too.

    Args:
        points: ``[N, 3]`` mm of the scan.
        surface: the prediction.
        start: where to begin; the nearest minimum is found, not the lowest.
        with_scale: False keeps the scale of `start`.
    """
    centre = points.mean(axis=0)
    size = float(np.sqrt(np.square(points - centre).sum(axis=1).mean()))
    if size == 0:
        return start
    placement, damping = start, 1e-6
    closest = surface.closest(placement.inverse(points))
    cost = float(np.square(placement.scale * closest.distances).sum())
    for _ in range(_ITERATIONS):
        residuals, jacobian = _linearised(points, surface, placement, closest, centre, size)
        if not with_scale:
            jacobian = jacobian[:, :6]
        normal_matrix, gradient = jacobian.T @ jacobian, jacobian.T @ residuals
        while damping < 1e8:
            step = -np.linalg.solve(normal_matrix + damping * len(points) * np.eye(len(gradient)), gradient)
            moved = _moved(placement, step, centre, size)
            moved_closest = surface.closest(moved.inverse(points))
            moved_cost = float(np.square(moved.scale * moved_closest.distances).sum())
            if moved_cost < cost or np.abs(step).max() < _SMALLEST_STEP:
                break
            damping *= 10
        if not moved_cost < cost:
            return placement
        placement, closest, cost = moved, moved_closest, moved_cost
        damping = max(damping / 10, 1e-12)
        if np.abs(step).max() < _SMALLEST_STEP:
            return placement
    return placement


def _linearised(
    points: Array, surface: Surface, placement: Placement, closest: Closest, centre: Array, size: float
) -> tuple[Array, Array]:
    """Distances ``[N]`` in units of `size`, signed along a direction each, and their derivatives ``[N, 7]`` by a turn
    about `centre`, a shift and the logarithm of the scale.
    """
    places = placement.apply(closest.points)
    apart = points - places
    distances = np.linalg.norm(apart, axis=1, keepdims=True)
    touching = distances < _TOUCHING * size
    normals = surface.normals(closest.faces) @ placement.rotation.T
    directions = np.where(touching, normals, apart / np.where(touching, 1, distances))
    residuals = (directions * apart).sum(axis=1) / size
    arms = (places - centre) / size
    slopes = np.concatenate([np.cross(arms, directions), directions, (arms * directions).sum(axis=1)[:, None]], axis=1)
    return residuals, -slopes


def _moved(placement: Placement, step: Array, centre: Array, size: float) -> Placement:
    turn = torch.linalg.matrix_exp(
        torch.from_numpy(np.array([[0, -step[2], step[1]], [step[2], 0, -step[0]], [-step[1], step[0], 0]], np.float64))
    ).numpy()
    factor = float(np.exp(step[6])) if len(step) > 6 else 1.0
    translation = factor * turn @ (placement.translation - centre) + centre + size * step[3:6]
    return Placement(placement.scale * factor, turn @ placement.rotation, translation)
