"""Parts of an image, turned and scaled, with the way back for points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A part of an image as a picture of its own."""

    image: NDArray[np.uint8]
    """[h, w, 3]."""
    matrix: Array
    """[2, 3]: ``point_of_the_image = matrix @ (x, y, 1)`` of a point of the view, pixel centres at integers."""

    def to_image(self, points: NDArray[np.floating]) -> Array:
        """Pixels of the view ``[..., 2]`` to those of the image."""
        mapped: Array = np.asarray(points, dtype=np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]
        return mapped

    @property
    def scale(self) -> float:
        """Pixels of the image for one of the view."""
        return float(np.hypot(*self.matrix[:, 0]))


def cut(image: NDArray[np.uint8], center: tuple[float, float], side: float, size: int, roll: float = 0.0) -> View:
    """A square of an image, turned, as ``size x size`` pixels; what lies beside the image repeats its border.

    Args:
        image: uint8 [H, W, 3].
        center: (x, y) of the square.
        side: of the square in pixels of the image.
        roll: radians by which its x axis is turned from the image's, to its y axis.
    """
    step = side / size
    along = step * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    matrix = np.concatenate([along, np.array([[center[0]], [center[1]]]) - along @ np.full((2, 1), (size - 1) / 2)], 1)
    reach = side * (abs(np.cos(roll)) + abs(np.sin(roll))) / 2 + 2 * max(step, 1)
    region, origin, factor = _region(image, center, reach, max(int(step), 1))
    # Of the region's pixels of `factor` image pixels a side; Pillow counts from corners of pixels, where i is i + 0.5.
    to_region = np.concatenate([matrix[:, :2], matrix[:, 2:] + 0.5 - matrix[:, :2] @ np.full((2, 1), 0.5)], axis=1)
    to_region[:, 2] -= origin
    to_region /= factor
    data = tuple(to_region.reshape(-1).tolist())
    turned = region.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return View(np.array(turned), matrix)


def _region(
    image: NDArray[np.uint8], center: tuple[float, float], reach: float, factor: int
) -> tuple[Image.Image, Array, int]:
    """The surroundings of a point, shrunk by a whole number, and the corner where they begin in the image."""
    height, width = image.shape[:2]
    left, top = (int(np.floor(value - reach)) for value in center)
    count = int(np.ceil(2 * reach / factor)) + 1
    columns = np.clip(np.arange(left, left + count * factor), 0, width - 1)
    rows = np.clip(np.arange(top, top + count * factor), 0, height - 1)
    region = Image.fromarray(image[rows[:, None], columns[None]])
    return (region.reduce(factor) if factor > 1 else region), np.array([left, top], dtype=np.float64), factor


def turned(image: NDArray[np.uint8], quarters: int) -> View:
    """The whole image turned counterclockwise by quarters of a circle."""
    height, width = image.shape[:2]
    # x, y of the image from those of the turned one.
    matrix = {
        0: [[1, 0, 0], [0, 1, 0]],
        1: [[0, -1, width - 1], [1, 0, 0]],
        2: [[-1, 0, width - 1], [0, -1, height - 1]],
        3: [[0, 1, 0], [-1, 0, height - 1]],
    }[quarters]
    return View(np.ascontiguousarray(np.rot90(image, quarters)), np.array(matrix, dtype=np.float64))


def part(image: NDArray[np.uint8], left: int, top: int, width: int, height: int, largest: int) -> View:
    """A rectangle of an image, which may reach beyond it (grey there), shrunk so that no side exceeds `largest`."""
    across, down = image.shape[1], image.shape[0]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, across), min(top + height, down)
    region = image[y0:y1, x0:x1]
    if (x0, y0, x1, y1) != (left, top, left + width, top + height):
        whole = np.full((height, width, 3), 128, dtype=np.uint8)
        whole[y0 - top : y1 - top, x0 - left : x1 - left] = region
        region = whole
    factor = max(width, height) / largest
    if factor <= 1:
        return View(np.ascontiguousarray(region), np.array([[1.0, 0, left], [0, 1, top]]))
    size = max(round(width / factor), 1), max(round(height / factor), 1)
    small = np.array(Image.fromarray(region).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    step_x, step_y = width / size[0], height / size[1]
    return View(small, np.array([[step_x, 0, left + (step_x - 1) / 2], [0, step_y, top + (step_y - 1) / 2]]))


def intersection_over_union(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Of two boxes (left, top, right, bottom)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
