"""A detector for tests: faces are a red block above a green one, which it finds upright and large enough alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focus.data.conventions import _INNER_POINTS
from focus.data.detection import DetectedFace

_JAW = np.stack([np.linspace(-60, 60, 17), 20 - 70 * np.sin(np.linspace(0, np.pi, 17))], axis=1)
TEMPLATE: NDArray[np.float64] = np.concatenate([_JAW, _INNER_POINTS[:, :2]]) * (1, -1)
"""[68, 2] mm, y down."""
LEAST = 0.1
"""Height of the smallest face that is found, in sides of the image."""
NOT_HERE = "no block"


def points_at(left: float, top: float, size: int) -> NDArray[np.float64]:
    """[68, 2] of a face whose blocks are `size` pixels wide and high, at the corner of the red one."""
    return TEMPLATE * (2 * size / 160) + (left + size / 2 - 0.5, top + size - 0.5)


def draw(image: NDArray[np.uint8], left: int, top: int, size: int) -> None:
    """Adds a face to a picture."""
    image[top : top + size, left : left + size] = (255, 0, 0)
    image[top + size : top + 2 * size, left : left + size] = (0, 255, 0)


def find(image: NDArray[np.uint8]) -> list[DetectedFace]:
    """The faces of a picture."""
    red = (image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60)
    green = (image[..., 1] > 200) & (image[..., 0] < 60) & (image[..., 2] < 60)
    found = []
    for top, left in np.argwhere(red & ~np.roll(red, 1, axis=0) & ~np.roll(red, 1, axis=1)).tolist():
        size = int(np.argmin(np.append(red[top, left:], False)))
        middle = left + size // 2
        below = top + size + size // 2
        if below < len(image) and green[below, middle] and 2 * size >= LEAST * max(image.shape[:2]):
            points = points_at(left, top, size)
            found.append(DetectedFace(points, 0.9, (left, top, left + size - 1.0, top + 2 * size - 1.0)))
    return found


def find_logged(image: NDArray[np.uint8]) -> list[DetectedFace]:
    """As `find`, for photos that tell nothing: writes down, in the current folder, that it was asked."""
    with Path("asked.txt").open("a") as file:
        file.write("x")
    return find(image)


def no_faces(image: NDArray[np.uint8]) -> list[object]:
    """What is no face."""
    return [(1, 2)]
