"""What a landmark table does not say: in which pixels its points are, and in which order. What is certain is refused.

A photo of a telephone is often stored on its side, with a tag (EXIF orientation) that says how to turn it. FOCUS, as
viewers, shows it turned, and landmarks are in the pixels that are shown; some detectors look at the stored ones.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from focus.data.landmarks import LANDMARK_COUNT, MIRRORED_LANDMARKS, five_from_68
from focus.errors import FocusError, FocusWarning

Array = NDArray[np.float64]

_MIRRORED = -0.5
"""Sine of the angle from the line of the eyes to the line from eyes to mouth, below which a face is mirrored. Those of
profiles are near 0, on either side."""
_UPRIGHT = 45.0
"""Degrees that a face may be rolled to be upright."""
_ON_PHOTO = 0.5
"""Share of the points that must lie on a photo for them to be its own."""
_CLEAR, _CLEARER = 0.4, 1.0
"""By how much the contrast of a face must be better to decide between two readings; more where the shape of the face
says nothing. With 13 photos of people and all orientations, the right reading is ahead by 2.7 in the median, and behind
in 1 of 89 cases."""
_NO_CONTRAST = 3
"""Grey values of 255 that the pixels of a face differ by at most where there is none; compression makes as many."""
_OTHER_ORDER = 0.5
"""RMS distance of the 51 points within the jaw from the best affine image of those of a mean face, relative to their
extent. Photos of people have 0.05 to 0.11, points in other orders more than 0.85."""

# The 51 landmarks within the jaw (17 to 67) of the mean of the procedural face, mm; y up, the face looks along +z.
_INNER_POINTS = np.array(
    [
        *([-54, 48, -22], [-45, 53, -10], [-36, 54, -2], [-24, 54, 3], [-13, 49, 4]),
        *([13, 49, 4], [24, 54, 3], [36, 54, -2], [45, 53, -10], [54, 48, -22]),
        *([0, 35, 8], [0, 24, 15], [0, 14, 22], [0, 0, 28]),
        *([-13, -10, 13], [-7, -14, 10], [0, -12, 16], [7, -14, 10], [13, -10, 13]),
        *([-45, 34, -12], [-36, 38, -5], [-27, 38, -3], [-16, 32, -2], [-27, 29, -3], [-36, 30, -5]),
        *([16, 32, -2], [27, 38, -3], [36, 38, -5], [45, 34, -12], [36, 30, -5], [27, 29, -3]),
        *([-26, -34, -1], [-15, -27, 7], [-6, -27, 11], [0, -28, 10], [6, -27, 11], [15, -27, 7], [26, -34, -1]),
        *([15, -40, 5], [6, -40, 9], [0, -43, 6], [-6, -40, 9], [-15, -40, 5]),
        *([-23, -34, 0], [-9, -32, 5], [0, -34, 6], [9, -32, 5], [23, -34, 0]),
        *([9, -32, 5], [0, -34, 6], [-9, -32, 5]),
    ],
    dtype=np.float64,
)


def check_landmarks(points: Array, photo: NDArray[np.uint8], orientation: int = 1, name: str = "photo") -> None:
    """That points can be those of a face on a photo, as it is shown.

    Args:
        points: [68, 2] or [5, 2], finite.
        photo: uint8 [H, W, 3], turned as its EXIF orientation says.
        orientation: that was in its file, 1 to 8.
        name: of the photo, for the warning.

    Raises:
        FocusError: most points lie outside of the photo, those of a mirrored face, or those of the photo as it is
            stored. The message says how they can be mended.

    Warns:
        FocusWarning: a face that lies on its side in the photo as shown, and stands in the photo as stored, where the
            pixels do not tell which is right.
    """
    if orientation != 1:
        _check_orientation(points, photo, orientation, name)
    height, width = photo.shape[:2]
    if _share_inside(points, height, width) < _ON_PHOTO:
        outside = len(points) - round(_share_inside(points, height, width) * len(points))
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        raise FocusError(
            f"landmarks: {outside} of {len(points)} points (x {left:.6g} to {right:.6g}, y {top:.6g} "
            f"to {bottom:.6g}) lie outside of the photo of {width} x {height} pixels; "
            f"{_guess_outside(points, height, width)}"
        )
    if np.abs(points).max() <= 1.5:
        raise FocusError(f"landmarks: all within 1.5 pixels of the corner of the photo; {_FRACTIONS}")
    roll, mirrored = _pose(points)
    if mirrored:
        raise FocusError(f"landmarks: those of a mirrored face, which no photo shows; {_guess_mirrored(roll)}")


def check_contrast(points: Array, photo: NDArray[np.uint8], name: str = "photo") -> None:
    """That there is something to see between the landmarks.

    Args:
        points: [68, 2] or [5, 2] pixels of the photo, most of them on it.
        photo: uint8 [H, W, 3].
        name: of the photo, for the message.

    Raises:
        FocusError: all pixels there have the same colour, as in a photo that is black or wholly transparent.
    """
    limit = np.array(photo.shape[1::-1]) - 1
    left, top = np.clip(np.floor(points.min(axis=0)), 0, limit).astype(np.int64)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, limit).astype(np.int64)
    face = photo[top : bottom + 1, left : right + 1].reshape(-1, 3)
    if int(np.ptp(face, axis=0).max()) <= _NO_CONTRAST:
        raise FocusError(
            f"{name}: no contrast at the landmarks: all pixels from x {left} to {right} and y {top} to {bottom} are "
            f"about {face[0].tolist()} (RGB); is the photo black, transparent or damaged?"
        )


def check_order(points: Array) -> None:
    """That 68 points are in the order of iBUG: seen from anywhere, they have nearly the shape of a face.

    Args:
        points: [68, 2], not all in one place; of [5, 2], too few to tell, nothing is said.

    Raises:
        FocusError: they are not.
    """
    if len(points) != LANDMARK_COUNT:
        return
    inner = points[LANDMARK_COUNT - len(_INNER_POINTS) :]
    design = np.concatenate([_INNER_POINTS, np.ones((len(_INNER_POINTS), 1))], axis=1)
    misfit = np.linalg.norm(inner - design @ np.linalg.lstsq(design, inner, rcond=None)[0])
    extent = np.linalg.norm(inner - inner.mean(axis=0))
    if misfit > _OTHER_ORDER * extent:
        raise FocusError(
            f"landmarks: no face fits them: the points within the jaw are off by {100 * misfit / extent:.0f}% of their "
            "extent, seen from anywhere; are they in the order of iBUG (jaw, brows, nose, eyes, mouth), and those of "
            "one face?"
        )


_FRACTIONS = "are they fractions of its size? Multiply x by its width and y by its height"


def _guess_outside(points: Array, height: int, width: int) -> str:
    if np.abs(points).max() <= 1.5:
        return _FRACTIONS
    if _share_inside(points[:, ::-1], height, width) == 1:
        return "are x and y swapped?"
    if _share_inside(points * (1, -1), height, width) == 1:
        return "does y count upwards? It must count down from the top"
    return "do they belong to it, in its own pixels and orientation?"


def _guess_mirrored(roll: float) -> str:
    if abs(roll) > 180 - _UPRIGHT:
        return "does y count upwards? It must count down from the top (y becomes height - 1 - y)"
    if abs(roll) > _UPRIGHT:
        return "are x and y swapped?"
    return (
        "expected the image's left eye before its right eye (iBUG order), x to the right and y down; is the photo "
        "mirrored after its landmarks were made?"
    )


def _check_orientation(points: Array, photo: NDArray[np.uint8], orientation: int, name: str) -> None:
    """Compares the points as given, in the photo as shown, with the same in the photo as stored."""
    height, width = photo.shape[:2]
    stored = _shown_from_stored(points, height, width, orientation)
    as_given = _share_inside(points, height, width) >= _ON_PHOTO
    as_stored = _share_inside(stored, height, width) >= _ON_PHOTO
    if not as_stored or not _stands(stored):
        return
    evidence = f"EXIF orientation {orientation}: the photo is stored turned or mirrored, and shown as it was taken"
    cure = (
        "Turn the pixels first, for example by PIL.ImageOps.exif_transpose, detect again, and give points in the photo "
        "as viewers show it"
    )
    if as_given:
        # Where both stand, as in a photo that is stored mirrored, the shape of the face says nothing.
        ahead = _clearer(stored, points, photo)
        clear = _CLEARER if _stands(points) else _CLEAR
        if ahead < clear:
            if not _stands(points) and ahead > -_CLEARER:
                warnings.warn(
                    f"{name}: landmarks of a face that lies on its side, and would stand in the photo as stored "
                    f"({evidence}); is this right? If not: {cure}",
                    FocusWarning,
                    stacklevel=3,
                )
            return
    raise FocusError(f"landmarks: those of the photo as stored, not as shown ({evidence}). {cure}")


def _shown_from_stored(points: Array, height: int, width: int, orientation: int) -> Array:
    """Points in the pixels of the stored photo to those of the photo as shown, whose size is given.

    Where this mirrors the photo, points on the left and on the right change their places in the list, too.
    """
    x, y = points.T
    right, bottom = width - 1 - x, height - 1 - y
    shown = {
        2: (right, y),
        3: (right, bottom),
        4: (x, bottom),
        5: (y, x),
        # Stored x and y run along the other sides of the photo as shown.
        6: (width - 1 - y, x),
        7: (width - 1 - y, height - 1 - x),
        8: (y, height - 1 - x),
    }[orientation]
    turned = np.stack(shown, axis=1)
    if orientation in (2, 4, 5, 7):
        turned = turned[MIRRORED_LANDMARKS] if len(turned) == LANDMARK_COUNT else turned[[1, 0, 2, 4, 3]]
    return turned


def _five(points: Array) -> Array:
    return points if len(points) == 5 else five_from_68(points)


def _share_inside(points: Array, height: int, width: int) -> float:
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(axis=1)
    return float(inside.mean())


def _pose(points: Array) -> tuple[float, bool]:
    """Degrees by which the chin is turned from straight down, and whether the face is mirrored."""
    left_eye, right_eye, _, left_mouth, right_mouth = _five(points)
    across, down = right_eye - left_eye, (left_mouth + right_mouth - left_eye - right_eye) / 2
    turn = across[0] * down[1] - across[1] * down[0]  # 1 for a frontal face that is not rolled, about 0 for a profile
    mirrored = turn < _MIRRORED * np.linalg.norm(across) * np.linalg.norm(down)
    return float(np.degrees(np.arctan2(-down[0], down[1]))), bool(mirrored)


def _stands(points: Array) -> bool:
    roll, mirrored = _pose(points)
    return abs(roll) <= _UPRIGHT and not mirrored


def _clearer(points: Array, others: Array, photo: NDArray[np.uint8]) -> float:
    """By how much the face at `points` has more contrast than the one at `others`."""
    (contrast, spread), (other_contrast, other_spread) = _contrast(points, photo), _contrast(others, photo)
    return (contrast - other_contrast) / (max(spread, other_spread) + 1e-6)


def _contrast(points: Array, photo: NDArray[np.uint8]) -> tuple[float, float]:
    """How much darker each eye is at least than the cheek below it and than the bridge of the nose, in grey values, and
    the standard deviation of those: the first two features of Viola and Jones (2001), at landmarks.
    """
    left_eye, right_eye, nose, left_mouth, right_mouth = _five(points)
    size = float(np.linalg.norm((left_mouth + right_mouth - left_eye - right_eye) / 2))  # even in profile
    grid = np.stack(np.meshgrid(*[np.linspace(-0.13, 0.13, 7)] * 2), axis=-1).reshape(-1, 2)
    disk = size * grid[np.linalg.norm(grid, axis=1) <= 0.13]
    between = (left_eye + right_eye) / 2
    centers = np.stack(
        [
            left_eye,
            right_eye,
            (left_eye + left_mouth) / 2,
            (right_eye + right_mouth) / 2,
            between + 0.05 * (nose - between),
        ]
    )
    pixels = np.rint(centers[:, None] + disk)
    x, y = np.moveaxis(np.clip(pixels, 0, np.array(photo.shape[1::-1]) - 1), -1, 0).astype(np.int64)
    grey = photo[y, x].mean(axis=-1)  # [5, pixels of a disk]
    eyes, cheeks, bridge = grey[:2].mean(axis=1), grey[2:4].mean(axis=1), grey[4].mean()
    return float((cheeks - eyes).min() + (bridge - eyes).min()), float(grey.std())
