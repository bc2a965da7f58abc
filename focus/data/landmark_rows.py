"""What files of landmarks hold: a row for each face, and what could not be used."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.data.images import image_size
from focus.data.mesh_points import ibug_from_mesh

LANDMARK_COUNT = 68
LARGEST_COORDINATE = 1e6
"""Pixels; no photo has as many on a side."""


class Skip(NamedTuple):
    """One thing that was left out, and why."""

    name: str
    reason: str


class LandmarkRow(NamedTuple):
    """One face."""

    name: str
    """Of the photo, as written."""
    points: NDArray[np.float64]
    """[68, 2] or [5, 2] pixels of the photo: x right, y down, pixel centres at integers."""
    fractions: bool = False
    """The points are those of MediaPipe's mesh, [468 or 478, 2], in fractions of the photo's width and height."""

    def on(self, photo: Path) -> NDArray[np.float64]:
        """The points in pixels of the photo.

        Raises:
            FocusError: as `image_size`, where its size is needed.
        """
        if not self.fractions:
            return self.points
        height, width = image_size(photo)
        return ibug_from_mesh(self.points * (width, height) - 0.5)


class LandmarkTable(NamedTuple):
    """What a landmark file held."""

    rows: list[LandmarkRow]
    """In file order. A photo with several faces has a row for each."""
    skipped: list[Skip]
    """Rows that could not be used, in file order."""

    @property
    def points(self) -> dict[str, NDArray[np.float64]]:
        """File name as written -> the points of its first face; without rows that need the photo's size."""
        first: dict[str, NDArray[np.float64]] = {}
        for row in self.rows:
            if not row.fractions:
                first.setdefault(row.name, row.points)
        return first


def short(text: str) -> str:
    """A text of a file, for a message."""
    return text if len(text) <= 80 else f"{text[:77]}..."
