"""Landmarks of photos: read from files of every kind, matched with photos by their names, 68 or 5 points of a face."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.data.images import PHOTO_SUFFIXES
from focus.data.landmark_files import is_points_file, parse_points, read_folder
from focus.data.landmark_rows import LANDMARK_COUNT, LandmarkRow, LandmarkTable, Skip, short
from focus.data.landmark_table import parse_table
from focus.errors import FocusError
from focus.files import locate, read_text

__all__ = [
    "LANDMARK_COUNT",
    "MIRRORED_LANDMARKS",
    "Face",
    "LandmarkRow",
    "LandmarkTable",
    "Skip",
    "expand_to_68",
    "find_faces",
    "five_from_68",
    "name_parts",
    "read_landmarks",
    "resolve_photo",
]

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


def read_landmarks(path: str | Path) -> LandmarkTable:
    """Reads a landmark table, the landmarks of one photo, or a folder of such files (`read_folder`).

    A table has rows of file name, then x1,y1,...,x68,y68; or 5 points: image-left eye, image-right eye, nose tip,
    image-left and image-right mouth corner. Commas, semicolons or tabs are between the cells, the same in all rows;
    with semicolons and tabs, decimals may have a comma. Integers and decimals are accepted; so are a header row, lines
    of comments before it (#), empty lines, byte-order marks (of UTF-8 and UTF-16) and either line ending. A row with a
    wrong count, a missing, non-numeric, infinite or absurd number, without a name, or that repeats another is skipped
    and listed.

    The landmarks of one photo (``.pts`` of iBUG, ``.txt`` with x and y in each of 5 or 68 lines, ``.json``; see
    `parse_points`) are those of the photo of the same name, whatever its suffix.

    Raises:
        FocusError: the file cannot be read as text or as landmarks, or no row is usable.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise FocusError(f"{path}: no such landmark file")
    if path.is_dir():
        return read_folder(path)
    try:
        text = read_text(path, limits.TABLE_FILE)
    except FocusError as error:
        detail = str(error).removeprefix(f"{path}: ")
        raise FocusError(f"{path}: cannot be read as a CSV text file: {detail}") from error
    if "\0" in text:
        raise FocusError(
            f"{path}: cannot be read as a CSV text file: it has NUL characters, as a text in UTF-16 without a "
            "byte-order mark; save it as UTF-8"
        )
    if is_points_file(path, text):
        return LandmarkTable(parse_points(path, text, path.stem), [])
    return parse_table(path, text)


class Face(NamedTuple):
    """A row of a landmark table, and the photo that it means."""

    name: str
    """Of its own: that of the photo, with its number where the photo has several faces (``a.jpg, face 2``)."""
    photo: str
    """Of the photo, relative to the folder, with forward slashes."""
    path: Path
    """The file, at the end of its links."""
    points: NDArray[np.float64]
    """[68, 2] or [5, 2] pixels of the photo."""


def find_faces(folder: Path, rows: Iterable[LandmarkRow]) -> list[Face | Skip]:
    """For each row of a landmark table the face in a folder of photos, or why there is none."""
    found: list[tuple[str, Path, NDArray[np.float64]] | Skip] = []
    seen: set[tuple[Path, bytes]] = set()
    for row in rows:
        try:
            path = resolve_photo(folder, row.name)
        except FocusError as error:
            found.append(Skip(short(row.name), str(error)))
            continue
        try:
            points = row.on(path)
        except FocusError as error:
            found.append(Skip(short(row.name), str(error)))
            continue
        if (path, points.tobytes()) in seen:
            found.append(Skip(short(row.name), "another row has the same photo and the same points"))
            continue
        seen.add((path, points.tobytes()))
        relative = _relative(folder, row.name)
        # A name without its suffix means the photo that was found for it.
        whole = relative.suffix.lower() in PHOTO_SUFFIXES
        named = relative if whole else relative.with_name(_place(folder, relative).name)
        found.append((named.as_posix(), path, points))
    count = Counter(entry[1] for entry in found if not isinstance(entry, Skip))
    number: Counter[Path] = Counter()
    faces: list[Face | Skip] = []
    for entry in found:
        if isinstance(entry, Skip):
            faces.append(entry)
            continue
        photo, path, points = entry
        number[path] += 1
        faces.append(Face(f"{photo}, face {number[path]}" if count[path] > 1 else photo, photo, path, points))
    return faces


def resolve_photo(folder: Path, name: str) -> Path:
    """The file that a row of a landmark table means.

    Names are relative to the folder, or absolute and in it; accents may be composed or not, and Windows' backslashes
    are understood. A file of the folder may be a link, as hubs and version control of data make them: it is followed
    wherever it leads. A folder below may not lead out of it.

    Raises:
        FocusError: the name leaves the folder (absolute, `..`, or through a linked folder), or no such file is there.
            The message is the bare reason, for a list of skips.
    """
    relative = _relative(folder, name)
    try:
        place = _place(folder, relative)
        inside = place.parent.resolve().is_relative_to(folder.resolve())
        path = place.resolve()
        present = path.is_file()
    except FocusError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # name too long, NUL inside, a loop of links
        raise FocusError(f"not a usable file name ({error})") from error
    if not inside:
        raise FocusError("the path leaves the photo folder through a linked folder")
    if not present:
        if place.is_symlink():
            raise FocusError("its link leads to no file; fetch the data first (git annex get, dvc pull, ...)")
        if path.exists() and not path.is_dir():
            raise FocusError("is no ordinary file")
        raise FocusError("no such file in the photo folder")
    return path


def _place(folder: Path, relative: PurePosixPath) -> Path:
    """Where a file is, whose name may lack its suffix, as those of landmark files do."""
    place = locate(folder, relative)
    if os.path.lexists(place) or relative.suffix.lower() in PHOTO_SUFFIXES or not relative.name:
        return place
    found = {
        locate(place.parent, f"{place.name}{end}") for suffix in PHOTO_SUFFIXES for end in (suffix, suffix.upper())
    }
    there = sorted(path for path in found if os.path.lexists(path))
    if len({path.resolve() for path in there}) > 1:
        raise FocusError(f"several photos of this name: {', '.join(path.name for path in there)}")
    return there[0] if there else place


def _relative(folder: Path, name: str) -> PurePosixPath:
    """A name of a row, relative to the folder."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if ".." in posix.parts or ".." in windows.parts:
        raise FocusError("the path leaves the photo folder")
    if posix.is_absolute():
        for root in (Path(os.path.abspath(folder)), folder.resolve()):
            if posix.is_relative_to(root.as_posix()):
                return posix.relative_to(root.as_posix())
        raise FocusError("the path leaves the photo folder")
    if windows.drive or windows.root:
        raise FocusError("the path leaves the photo folder")
    if "\\" in name and not (folder / posix).exists():
        return PurePosixPath(windows.as_posix())
    return posix


def name_parts(name: str | os.PathLike[str]) -> tuple[str, ...]:
    """The parts of a path for comparisons: with accents composed and forward slashes, without ``.``."""
    return PurePosixPath(unicodedata.normalize("NFC", os.fspath(name)).replace("\\", "/")).parts


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
