"""Faces of a whole photo by any detector: also small ones, those that lie on their side, and those at its border."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focus.data.detection.detectors import DetectedFace, LandmarkDetector, checked
from focus.data.detection.pixels import View, intersection_over_union, part, turned
from focus.errors import FocusError

FaceChoice = Literal["largest", "all"] | int
"""Which faces of a photo are wanted: the largest, all, or so many of the largest."""

_SURE = 0.7
"""Score from which nobody turns the photo to find a better one."""
_LEAST = 0.5
"""Score that a face must have."""
_BORDER = 0.5
"""Width of the border that is added to a photo whose face may fill it, in sides of the photo."""
_TILE_SIDES = (2, 4, 8)
"""Tiles have the photo's shorter side divided by these, and overlap by half."""
_SMALLEST_TILE, _LARGEST_VIEW = 96, 1280
_OVERLAP = 0.4
_CUT_OFF = 0.02
"""A box that comes nearer to an inner edge of its tile, in sides of the tile, may be a part of a face."""


def parse_choice(text: str) -> FaceChoice:
    """``largest``, ``all``, or a number.

    Raises:
        FocusError: something else.
    """
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise FocusError(f"--faces: expected largest, all or a number from 1, got {text!r}")


def search_faces(
    image: NDArray[np.uint8], detector: LandmarkDetector, faces: FaceChoice = "largest"
) -> list[DetectedFace]:
    """The faces of a photo, the largest first.

    The photo as it is comes first; where it does not show enough sure faces, it is turned by quarters, then given a
    border, then looked at in smaller and smaller tiles. Of the same face found several times the surest counts.

    Args:
        image: uint8 [H, W, 3] RGB.
        detector: any.
        faces: which ones; with ``all``, every way is tried.

    Returns:
        DetectedFace with points and box in pixels of the image; none where there is no face.

    Raises:
        FocusError: the detector returned something that is no face.
    """
    found: list[DetectedFace] = []
    wanted = {"largest": 1.0, "all": np.inf}.get(str(faces)) or float(faces)
    ways = [(_whole(image), _SURE), (_turned(image), _SURE), (_bordered(image), _LEAST)]
    for views, least in (*ways, *((views, _LEAST) for views in _tiles(image))):
        for view, inner in views:
            found += [_moved(face, view) for face in checked(detector(view.image)) if _is_whole(face, view, inner)]
        found = _distinct(found)
        if sum(face.score >= least for face in found) >= wanted:
            break
    good = sorted((face for face in found if face.score >= _LEAST), key=lambda face: -_area(face))
    return good if faces == "all" else good[: int(wanted)]


Views = Iterator[tuple[View, tuple[bool, bool, bool, bool]]]
"""Parts of a photo, and whether their left, top, right and bottom edge are within it."""
_NONE_INNER = (False, False, False, False)


def _whole(image: NDArray[np.uint8]) -> Views:
    height, width = image.shape[:2]
    yield part(image, 0, 0, width, height, _LARGEST_VIEW), _NONE_INNER


def _turned(image: NDArray[np.uint8]) -> Views:
    height, width = image.shape[:2]
    small = part(image, 0, 0, width, height, _LARGEST_VIEW)
    for quarters in (1, 3, 2):
        view = turned(small.image, quarters)
        yield View(view.image, _after(small.matrix, view.matrix)), _NONE_INNER


def _bordered(image: NDArray[np.uint8]) -> Views:
    height, width = image.shape[:2]
    border = round(_BORDER * max(height, width))
    yield part(image, -border, -border, width + 2 * border, height + 2 * border, _LARGEST_VIEW), _NONE_INNER


def _tiles(image: NDArray[np.uint8]) -> Iterator[Views]:
    """For each size of tiles all of them."""
    height, width = image.shape[:2]
    for number in _TILE_SIDES:
        side = min(height, width) // number
        if side >= _SMALLEST_TILE:
            yield _tiles_of(image, side)


def _tiles_of(image: NDArray[np.uint8], side: int) -> Views:
    height, width = image.shape[:2]
    for top in _starts(height, side):
        for left in _starts(width, side):
            inner = (left > 0, top > 0, left + side < width, top + side < height)
            yield part(image, left, top, side, side, _LARGEST_VIEW), inner


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin that overlap by at least half, and end with the photo."""
    count = int(np.ceil(2 * (length - side) / side)) + 1
    return [round(place) for place in np.linspace(0, length - side, count)]


def _after(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2, 3]: points by the second map, then by the first."""
    both: NDArray[np.float64] = first[:, :2] @ second
    both[:, 2] += first[:, 2]
    return both


def _moved(face: DetectedFace, view: View) -> DetectedFace:
    """A face of a view as one of the image; a turn of the view does not change the order of its points."""
    left, top, right, bottom = face.box
    corners = view.to_image(np.array([[left, top], [right, top], [left, bottom], [right, bottom]]))
    (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return DetectedFace(view.to_image(face.points), face.score, (x0, y0, x1, y1))


def _is_whole(face: DetectedFace, view: View, inner: tuple[bool, bool, bool, bool]) -> bool:
    height, width = view.image.shape[:2]
    margin = _CUT_OFF * max(height, width)
    left, top, right, bottom = face.box
    gaps = (left, top, width - 1 - right, height - 1 - bottom)
    return not any(within and gap < margin for within, gap in zip(inner, gaps, strict=True))


def _distinct(faces: list[DetectedFace]) -> list[DetectedFace]:
    """Of several finds of one face the surest."""
    kept: list[DetectedFace] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(intersection_over_union(face.box, other.box) < _OVERLAP for other in kept):
            kept.append(face)
    return kept


def _area(face: DetectedFace) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)
