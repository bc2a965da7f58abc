"""The landmark files of the original: CSV rows of a file name and x, y of 68 (or 5) points in pixels of the photo."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError

LANDMARK_COUNT = 68
_LARGEST_COORDINATE = 1e6

# iBUG 68: which landmark a landmark becomes when the picture is mirrored.
_MIRRORED_PARTS = (
    range(16, -1, -1),  # jaw, right ear to left ear
    range(26, 16, -1),  # brows
    range(27, 31),  # nose bridge
    range(35, 30, -1),  # nostrils
    (45, 44, 43, 42, 47, 46),  # left eye from the right eye
    (39, 38, 37, 36, 41, 40),
    (54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    (64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
)
MIRRORED_LANDMARKS: NDArray[np.int64] = np.array([index for part in _MIRRORED_PARTS for index in part], dtype=np.int64)
"""[68]: `mirrored_points = points[MIRRORED_LANDMARKS]` after x -> width - 1 - x."""


class Skip(NamedTuple):
    """One thing that was left out, and why."""

    name: str
    reason: str


class LandmarkTable(NamedTuple):
    """What a landmark file held."""

    points: dict[str, NDArray[np.float64]]
    """File name as written -> [68, 2] or [5, 2] pixels of the photo: x right, y down, pixel centres at integers."""
    skipped: list[Skip]
    """Rows that could not be used, in file order."""


def read_landmarks(path: str | Path) -> LandmarkTable:
    """Reads a landmark CSV: file name, then x1,y1,...,x68,y68; or 5 points: image-left eye, image-right eye, nose tip,
    image-left and image-right mouth corner.

    Integers and decimals are accepted; so are a header row, empty lines, a byte-order mark and either line ending. A
    row with a wrong count, a missing, non-numeric, infinite or absurd number, without a name, or with a name that came
    before is skipped and listed.

    Raises:
        FocusError: the file cannot be read as text, or no row is usable.
    """
    path = Path(path)
    points: dict[str, NDArray[np.float64]] = {}
    skipped: list[Skip] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = enumerate(csv.reader(file), start=1)
            for number, row in rows:
                cells = [cell.strip() for cell in row]
                if not any(cells) or (number == 1 and _is_header(cells)):
                    continue
                name = cells[0]
                values, reason = _parse(cells[1:])
                if not name:
                    reason = "no file name"
                elif reason is None and name in points:
                    reason = "a second row for this file; the first is used"
                if reason is None and values is not None:
                    points[name] = values
                else:
                    skipped.append(Skip(name or "unnamed", f"row {number}: {reason}"))
    except FileNotFoundError as error:
        raise FocusError(f"{path}: no such landmark file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FocusError(f"{path}: cannot be read as a CSV text file ({error})") from error
    if not points:
        detail = (
            f"; first of {len(skipped)} skipped rows: {skipped[0].name}: {skipped[0].reason}"
            if skipped
            else "; it has no rows"
        )
        raise FocusError(
            f"{path}: no usable row{detail}. Expected: file name,x1,y1,...,x68,y68 (or 5 points), in photo pixels"
        )
    return LandmarkTable(points, skipped)


def resolve_photo(folder: Path, name: str) -> Path:
    """The file that a row of a landmark CSV means.

    Raises:
        FocusError: the name leaves the folder (absolute, `..`, or through a link), or no such file is there. The
            message is the bare reason, for a list of skips.
    """
    forms = (PurePosixPath(name), PureWindowsPath(name))
    if any(form.is_absolute() or form.drive or ".." in form.parts for form in forms):
        raise FocusError("the path leaves the photo folder")
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        inside, present = path.is_relative_to(root), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # name too long, NUL inside, a loop of links
        raise FocusError(f"not a usable file name ({error})") from error
    if not inside:
        raise FocusError("the path leaves the photo folder through a link")
    if not present:
        raise FocusError("no such file in the photo folder")
    return path


def five_from_68(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Eye centres (mean of the eye corners), nose tip and mouth corners: [..., 68, D] -> [..., 5, D]."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim < 2 or points.shape[-2] != LANDMARK_COUNT:
        raise FocusError(f"five_from_68: expected points [..., 68, D], got shape {list(points.shape)}")
    left_eye = points[..., (36, 39), :].mean(axis=-2)
    right_eye = points[..., (42, 45), :].mean(axis=-2)
    return np.stack([left_eye, right_eye, points[..., 30, :], points[..., 48, :], points[..., 54, :]], axis=-2)


def expand_to_68(points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[68, 2] or [5, 2] points -> (points [68, 2], weights [68]).

    Five points become the nose tip (30) and the mouth corners (48, 54) with weight 1; both eyes' points are their
    centre, so that `five_from_68` gives the five back, and the rest the nose tip, all with weight 0: known to no
    landmark loss.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape == (LANDMARK_COUNT, 2):
        return points.copy(), np.ones(LANDMARK_COUNT)
    if points.shape != (5, 2):
        raise FocusError(f"expand_to_68: expected points [68, 2] or [5, 2], got shape {list(points.shape)}")
    expanded = np.repeat(points[2:3], LANDMARK_COUNT, axis=0)
    expanded[36:42], expanded[42:48] = points[0], points[1]
    expanded[48], expanded[54] = points[3], points[4]
    weights = np.zeros(LANDMARK_COUNT)
    weights[[30, 48, 54]] = 1
    return expanded, weights


def _is_header(cells: list[str]) -> bool:
    return len(cells) > 1 and not any(_is_number(cell) for cell in cells[1:]) and any(cells[1:])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parse(cells: list[str]) -> tuple[NDArray[np.float64] | None, str | None]:
    """The numbers of a row as [68 or 5, 2], or the reason why not."""
    while cells and not cells[-1]:  # trailing commas, as spreadsheets leave them
        cells = cells[:-1]
    if len(cells) not in (2 * LANDMARK_COUNT, 10):
        return None, f"{len(cells)} numbers; expected 136 (68 points) or 10 (5 points)"
    if not all(_is_number(cell) for cell in cells):
        bad = next(cell for cell in cells if not _is_number(cell))
        return None, f"{bad!r} is not a number" if bad else "a number is missing"
    values = np.array([float(cell) for cell in cells])
    if not np.isfinite(values).all() or np.abs(values).max() > _LARGEST_COORDINATE:
        return None, "a coordinate is not finite or far outside of any photo"
    return values.reshape(-1, 2), None
