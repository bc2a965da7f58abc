"""How far the camera was: a face seen from near has a large nose and hides its own ears."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.camera import DEFAULT_DISTANCE
from focus.face.contour import LandmarkLocator
from focus.fit.landmarks import LandmarkFit, LandmarkObservation, initial_pose

DISTANCES = (350.0, 600.0, 1000.0, 2000.0)
"""Starts, mm: a telephone in one's own hand, in that of another, a portrait, a telephoto lens."""
_TOLERANCE = 1e-3
"""Part of the energy, a few hundredths of a standard deviation, that no further step is worth."""
_USUAL, _SPREAD = 800.0, 0.5
"""Median a priori, mm, and standard deviation of the logarithm: two of three photos are from 0.5 to 1.3 m."""


def fit_with_distance(
    model: MorphableModel,
    locator: LandmarkLocator,
    observation: LandmarkObservation,
    expression_sigma: float,
    camera: Camera,
    distances: Sequence[float] = DISTANCES,
) -> tuple[FaceParameters, Camera]:
    """Pose, identity, expression and the distance of the camera, at their maximum a posteriori given landmarks.

    The size of a face in the picture says the quotient of focal length and distance, its perspective says the distance.
    From each of some distances all else is fitted; a parabola through the best three in the logarithm of the distance
    gives the last one.

    Args:
        model: the face.
        locator: of its landmarks.
        observation: the points.
        expression_sigma: standard deviation a priori of the expression coefficients.
        camera: of the crop; its focal length is but a start.
        distances: at least three to start from, mm, increasing; or none: the camera is as it is.

    Returns:
        The face (B = 1), and the camera with the focal length that belongs to the distance.
    """
    points = model.mean_shape[model.landmarks68].double().cpu()
    start = FaceParameters.mean(model)
    rotation, translation = initial_pose(observation, points, camera)
    start.rotation[0], start.translation[0] = rotation, translation
    if not distances:
        fit = LandmarkFit(model, locator, camera, observation, expression_sigma)
        return fit.solve(fit.solve(start, pose_only=True)), camera
    # The last bits of sums depend on where arrays lie in memory, and must not show: the next run has the same bytes.
    scale = round(camera.focal / (DEFAULT_DISTANCE + float(translation[2])), 9)  # pixels per mm

    def solved(distance: float, parameters: FaceParameters) -> tuple[float, FaceParameters, Camera]:
        seen = Camera(camera.image_size, scale * distance, camera.offset)
        moved = parameters.translation.clone()
        moved[0, 2] = distance - DEFAULT_DISTANCE
        fit = LandmarkFit(model, locator, seen, observation, expression_sigma)
        found = replace(parameters, translation=moved)
        if parameters is start:
            found = fit.solve(found, pose_only=True, tolerance=_TOLERANCE)
        found = fit.solve(found, tolerance=_TOLERANCE)
        reached = DEFAULT_DISTANCE + float(found.translation[0, 2])
        unusual = math.log(max(reached, 1.0) / _USUAL) / _SPREAD
        return fit.energy(found) + 0.5 * unusual**2, found, seen

    tried = []
    parameters = start
    for distance in reversed(distances):
        tried.append((distance, *solved(distance, parameters)))
        parameters = tried[-1][2]
    tried.reverse()
    best = min(range(len(tried)), key=lambda k: tried[k][1])
    middle = min(max(best, 1), len(tried) - 2)
    (a, ea, *_), (b, eb, *_), (c, ec, *_) = tried[middle - 1 : middle + 2]
    lowest = round(math.exp(_vertex((math.log(a), ea), (math.log(b), eb), (math.log(c), ec))), 3)
    tried.append((lowest, *solved(lowest, tried[best][2])))
    _, _, face, seen = min(tried, key=lambda t: t[1])
    return face, seen


def _vertex(*points: tuple[float, float]) -> float:
    """Where the parabola through three points is lowest, between the first and the last of them."""
    (a, ea), (b, eb), (c, ec) = points
    left, right = (ea - eb) / (a - b), (ec - eb) / (c - b)
    bend = (right - left) / (c - a)
    if bend <= 0:
        return min(points, key=lambda p: p[1])[0]
    return min(max((a + b) / 2 - left / (2 * bend), a), c)
