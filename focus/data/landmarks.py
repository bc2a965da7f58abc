"""The landmark files of the original: rows of a file name and x, y of 68 (or 5) points in pixels of the photo."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.errors import FocusError
from focus.files import locate, read_text

LANDMARK_COUNT = 68
_LARGEST_COORDINATE = 1e6
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_NUMBERS = (2 * LANDMARK_COUNT, 10)
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".avif", ".heic", ".heif")
_FIRST_ROWS = 20
"""Rows by which the separator is recognised."""

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


class LandmarkRow(NamedTuple):
    """One face."""

    name: str
    """Of the photo, as written."""
    points: NDArray[np.float64]
    """[68, 2] or [5, 2] pixels of the photo: x right, y down, pixel centres at integers."""


class LandmarkTable(NamedTuple):
    """What a landmark file held."""

    rows: list[LandmarkRow]
    """In file order. A photo with several faces has a row for each."""
    skipped: list[Skip]
    """Rows that could not be used, in file order."""

    @property
    def points(self) -> dict[str, NDArray[np.float64]]:
        """File name as written -> the points of its first face."""
        first: dict[str, NDArray[np.float64]] = {}
        for row in self.rows:
            first.setdefault(row.name, row.points)
        return first


def read_landmarks(path: str | Path) -> LandmarkTable:
    """Reads a landmark table: file name, then x1,y1,...,x68,y68; or 5 points: image-left eye, image-right eye, nose
    tip, image-left and image-right mouth corner.

    Commas, semicolons or tabs are between the cells, the same in all rows; with semicolons and tabs, decimals may have
    a comma. Integers and decimals are accepted; so are a header row, comments (#) in the first rows, empty lines,
    byte-order marks (of UTF-8 and UTF-16) and either line ending. A row with a wrong count, a missing, non-numeric,
    infinite or absurd number, without a name, or that repeats another is skipped and listed.

    Raises:
        FocusError: the file cannot be read as text or as a table, or no row is usable.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise FocusError(f"{path}: no such landmark file")
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
    rows: list[LandmarkRow] = []
    skipped: list[Skip] = []
    seen: set[tuple[str, bytes]] = set()
    separator, text = _recognise(path, text)
    decimal = _decimal(path, text, separator)
    for count, (number, cells) in enumerate(_cells(path, text, separator)):
        if count == 0 and _is_header(cells, decimal):
            continue
        if not (rows or skipped) and cells[0].startswith("#") and len(_trimmed(cells)) - 1 not in _NUMBERS:
            continue  # a comment; a photo may have such a name
        name = cells[0]
        values, reason = _parse(cells[1:], separator, decimal)
        if not name:
            reason = "no file name"
        elif values is not None and (name, values.tobytes()) in seen:
            reason = "a second row of the same face, with the same points; the first is used"
        if reason is None and values is not None:
            seen.add((name, values.tobytes()))
            rows.append(LandmarkRow(name, values))
        else:
            skipped.append(Skip(_short(name) or "unnamed", f"row {number}: {reason}"))
    if not rows:
        detail = (
            f"; first of {len(skipped)} skipped rows: {skipped[0].name}: {skipped[0].reason}"
            if skipped
            else "; it has no rows"
        )
        raise FocusError(
            f"{path}: no usable row{detail}. Expected: file name,x1,y1,...,x68,y68 (or 5 points), in photo pixels"
        )
    return LandmarkTable(rows, skipped)


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
            found.append(Skip(_short(row.name), str(error)))
            continue
        if (path, row.points.tobytes()) in seen:
            found.append(Skip(_short(row.name), "another row has the same photo and the same points"))
            continue
        seen.add((path, row.points.tobytes()))
        found.append((_relative(folder, row.name).as_posix(), path, row.points))
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
        place = locate(folder, relative)
        inside = place.parent.resolve().is_relative_to(folder.resolve())
        path = place.resolve()
        present = path.is_file()
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


def _cells(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each row that is not empty."""
    # Strict: a quote that is not closed would swallow the rows after it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise FocusError(
            f"{path}: cannot be read as a table with {_SEPARATORS[separator]} between its cells (row {number + 1}: "
            f"{error})"
        ) from error


def _recognise(path: Path, text: str) -> tuple[str, str]:
    """The separator of a table, and its text: the one with which most of its first rows have the right numbers."""
    hint = re.match(r'("?)sep=([,;\t])\1(?:\r\n?|\n)', text, re.IGNORECASE)  # a line that Excel writes and obeys
    if hint:
        return hint[2], text[hint.end() :]
    lines = islice(io.StringIO(text, newline=None), 10 * _FIRST_ROWS)
    head = [line for line in lines if line.strip()][:_FIRST_ROWS]
    fitting = {separator: sum(_fits(line.split(separator)) for line in head) for separator in _SEPARATORS}
    best = max(fitting, key=lambda separator: fitting[separator])
    if fitting[best] == 0:
        occurring = {separator: sum(line.count(separator) for line in head) for separator in _SEPARATORS}
        best = max(occurring, key=lambda separator: occurring[separator])
        if head and not any(occurring.values()):
            raise FocusError(
                f"{path}: no usable row: its cells have no separator; expected commas, semicolons or tabs between file "
                "name,x1,y1,...,x68,y68 (or 5 points)"
            )
    return best, text


def _fits(cells: list[str]) -> bool:
    numbers = _trimmed(cells)[1:]
    return len(numbers) in _NUMBERS and all(re.fullmatch(r'\s*"?[-+0-9.,eE]+"?\s*', cell) for cell in numbers)


def _decimal(path: Path, text: str, separator: str) -> str:
    """What is between a number and its decimals: a comma only where it can be nothing else.

    Raises:
        FocusError: commas that may separate decimals or thousands.
    """
    if separator == ",":
        return "."
    numbers = [cell for _, cells in islice(_cells(path, text, separator), _FIRST_ROWS) for cell in cells[1:]]
    with_comma = [cell for cell in numbers if re.fullmatch(r"[-+]?[0-9]*,[0-9]+", cell)]
    if not with_comma or any(re.fullmatch(r"[-+]?[0-9]*[.][0-9]+", cell) for cell in numbers):
        return "."
    if all(re.fullmatch(r"[-+]?[1-9][0-9]{0,2},[0-9]{3}", cell) for cell in with_comma):
        raise FocusError(
            f"{path}: numbers such as {with_comma[0]} between {_SEPARATORS[separator]}: is the comma one of decimals "
            "or of thousands? Write decimals with a point"
        )
    return ","


def _is_header(cells: list[str], decimal: str) -> bool:
    """Words alone, of which the first does not look like a photo: a row that is not understood is listed."""
    if PurePosixPath(cells[0]).suffix.lower() in _PHOTO_SUFFIXES:
        return False
    return len(cells) > 1 and not any(_number(cell, decimal) is not None for cell in cells[1:]) and any(cells[1:])


def _number(cell: str, decimal: str) -> float | None:
    if decimal == ",":
        cell = "x" if "." in cell else cell.replace(",", ".")
    try:
        return None if "_" in cell else float(cell)  # Python takes 1_000 for a number
    except ValueError:
        return None


def _trimmed(cells: Sequence[str]) -> Sequence[str]:
    """Without the empty cells at the end that spreadsheets leave."""
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _parse(cells: Sequence[str], separator: str, decimal: str) -> tuple[NDArray[np.float64] | None, str | None]:
    """The numbers of a row as [68 or 5, 2], or the reason why not."""
    cells = _trimmed(cells)
    if len(cells) not in _NUMBERS:
        reason = f"{len(cells)} numbers; expected 136 (68 points) or 10 (5 points)"
        if len(cells) <= 1:
            reason += f", with {_SEPARATORS[separator]} between them"
        elif len(cells) - 1 in _NUMBERS and _number(cells[0], decimal) is None:
            reason += (
                "; is there a column before that of the file names, such as the index that pandas writes? Leave it out"
            )
        return None, reason
    values = [_number(cell, decimal) for cell in cells]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        bad = cells[values.index(None)]
        if not bad:
            return None, "a number is missing"
        reason = f"{_short(bad)!r} is not a number"
        if re.fullmatch(r"[-+]?[0-9]*,[0-9]+", bad):
            reason += "; its decimals have a comma, as they may between semicolons or tabs alone: write a point"
        elif re.fullmatch(r"[a-z_.]+[0-9]*\(.*\)", bad):
            reason += "; write it without the name of its type, as float(value) or value.item() gives it"
        return None, reason
    points = np.array(numbers)
    if not np.isfinite(points).all() or np.abs(points).max() > _LARGEST_COORDINATE:
        return None, "a coordinate is not finite or far outside of any photo"
    return points.reshape(-1, 2), None


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
