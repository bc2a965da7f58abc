"""Landmarks of one photo in a file of its own, as other programs write them, and folders of such files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.data.landmark_rows import LANDMARK_COUNT, LARGEST_COORDINATE, LandmarkRow, LandmarkTable, Skip
from focus.data.mesh_points import MESH_COUNTS, ibug_from_mesh
from focus.errors import FocusError
from focus.files import read_text
from focus.record import parse_json

Array = NDArray[np.float64]

_SUFFIXES = (".pts", ".txt", ".json")
_COUNTS = (5, LANDMARK_COUNT, *MESH_COUNTS)
_FIRST_PIXEL_OF_PTS = 1
"""iBUG's files count pixels from 1, as MATLAB does."""
_LARGEST_FRACTION = 2.0
"""Points of a face that reaches beyond its photo lie within this, in sides of the photo."""
_DEEPEST = 6
"""Levels of lists and objects round the points of a JSON file."""
_LISTS = ("faces", "results", "detections", "faceLandmarks", "face_landmarks", "multi_face_landmarks")
_POINTS = ("landmarks", "landmark", "points", "parts", "keypoints")
_DETECTIONS = "detections"
"""Folder beside or below the photos in which Deep3DFaceRecon_pytorch expects its files."""

# The parts of 68 points in the dictionaries of the package face_recognition, which takes them from dlib.
_PARTS = {
    "chin": range(17),
    "left_eyebrow": range(17, 22),
    "right_eyebrow": range(22, 27),
    "nose_bridge": range(27, 31),
    "nose_tip": range(31, 36),
    "left_eye": range(36, 42),
    "right_eye": range(42, 48),
    "top_lip": (*range(48, 55), 64, 63, 62, 61, 60),
    "bottom_lip": (*range(54, 60), 48, 60, 67, 66, 65, 64),
}


def is_points_file(path: Path, text: str) -> bool:
    """Whether a text is the landmarks of one photo, and no table of many."""
    suffix = path.suffix.lower()
    return suffix in (".pts", ".json") or (suffix == ".txt" and _plain_points(text) is not None)


def parse_points(path: Path, text: str, name: str) -> list[LandmarkRow]:
    """The faces of a file of landmarks.

    Args:
        path: its suffix tells the kind: ``.pts`` (iBUG; pixels from 1); ``.txt`` (x and y in each of 5 or 68 lines, as
            Deep3DFaceRecon_pytorch has them); ``.json`` (one face, a list of faces, or an object of photos: points as
            [x, y] or {"x": ..., "y": ...}, 5 or 68, or the 468 or 478 of MediaPipe, which may be fractions).
        text: of the file.
        name: of the photo, where the file does not say it.

    Raises:
        FocusError: something else.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        rows = list(_faces(parse_json(text, path), path, name, _DEEPEST))
        if not rows:
            raise FocusError(f"{path}: no face in it; expected 5, 68, 468 or 478 points, [x, y] or {{x, y}}")
        return rows
    points = _pts(path, text) if suffix == ".pts" else _plain_points(text)
    if points is None:
        raise FocusError(f"{path}: expected x and y of a point in each of 5 or 68 lines")
    return [_row(name, points, path)]


def read_folder(folder: Path) -> LandmarkTable:
    """All files of landmarks in a folder and below: ``.pts``, ``.txt`` and ``.json``, each named as its photo.

    The files of a folder ``detections`` are those of the photos beside it. What is no file of landmarks is skipped and
    listed, but for texts that are not named as a photo could be.

    Raises:
        FocusError: there is none.
    """
    rows: list[LandmarkRow] = []
    skipped: list[Skip] = []
    for path in _files(folder):
        relative = path.relative_to(folder)
        parts = [part for part in relative.with_suffix("").parts[:-1] if part != _DETECTIONS]
        try:
            rows += parse_points(path, read_text(path, limits.TEXT_FILE), "/".join([*parts, path.stem]))
        except FocusError as error:
            skipped.append(Skip(relative.as_posix(), str(error).removeprefix(f"{path}: ")))
    if not rows:
        detail = f"; first of {len(skipped)}: {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise FocusError(f"{folder}: no landmarks in this folder; expected .pts, .txt or .json files in it{detail}")
    return LandmarkTable(rows, skipped)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES:
                yield Path(place, name)


def _row(name: str, points: Array, path: Path) -> LandmarkRow:
    """A row of points in pixels, or, of a mesh, in fractions."""
    if len(points) not in _COUNTS:
        raise FocusError(f"{path}: {len(points)} points; expected {', '.join(map(str, _COUNTS[:-1]))} or {_COUNTS[-1]}")
    if not np.isfinite(points).all() or np.abs(points).max() > LARGEST_COORDINATE:
        raise FocusError(f"{path}: a coordinate is not finite or far outside of any photo")
    if len(points) not in MESH_COUNTS:
        return LandmarkRow(name, points)
    if np.abs(points).max() <= _LARGEST_FRACTION:
        return LandmarkRow(name, points, fractions=True)
    return LandmarkRow(name, ibug_from_mesh(points))


def _plain_points(text: str) -> Array | None:
    """x and y of a point in each line; None: it is something else."""
    lines = [re.split(r"[\s,]+", line.strip()) for line in text.splitlines()[: 2 * LANDMARK_COUNT] if line.strip()]
    if len(lines) not in (5, LANDMARK_COUNT) or any(len(cells) != 2 for cells in lines):
        return None
    return _numbers(lines)


def _pts(path: Path, text: str) -> Array:
    """``version: 1``, ``n_points: 68``, and x and y in lines between braces."""
    found = re.fullmatch(r"(?P<head>[^{}]*)\{(?P<body>[^{}]*)\}\s*", text)
    if found is None:
        raise FocusError(f"{path}: expected a .pts file: version, n_points, and points in lines between {{ and }}")
    lines = [line.split() for line in found["body"].splitlines() if line.strip()]
    points = _numbers(lines) if all(len(cells) == 2 for cells in lines) else None
    if points is None or not len(points):
        raise FocusError(f"{path}: expected two numbers in each line between {{ and }}")
    claimed = re.search(r"^\s*n_points\s*:\s*(\d+)\s*$", found["head"], re.MULTILINE)
    if claimed is not None and int(claimed[1][:9]) != len(points):
        raise FocusError(f"{path}: n_points is {claimed[1][:9]}, and there are {len(points)} points; is it cut off?")
    return points - _FIRST_PIXEL_OF_PTS


def _numbers(lines: list[list[str]]) -> Array | None:
    try:
        return np.array([[float(cell) for cell in cells] for cells in lines if "_" not in "".join(cells)])
    except ValueError:
        return None


def _faces(found: Any, path: Path, name: str, deepest: int) -> Iterator[LandmarkRow]:
    """The faces in a value of JSON."""
    points = _json_points(found)
    if points is not None:
        yield _row(name, points, path)
        return
    if deepest == 0:
        raise FocusError(f"{path}: expected points of faces, got lists or objects within each other")
    if isinstance(found, list):
        for value in found:
            if not isinstance(value, (list, dict)):
                raise FocusError(f"{path}: expected points [x, y] or {{x, y}}, got {value!r:.80}")
            yield from _faces(value, path, name, deepest - 1)
    elif isinstance(found, dict):
        inner = next((key for key in (*_POINTS, *_LISTS) if key in found), None)
        if inner is not None:
            of = next((found[key] for key in ("photo", "image", "file", "filename") if key in found), name)
            yield from _faces(found[inner], path, of if isinstance(of, str) and of else name, deepest - 1)
            return
        for photo, value in found.items():
            if not isinstance(value, (list, dict)):
                raise FocusError(f"{path}: {photo!r:.80}: expected points of faces, got {value!r:.80}")
            yield from _faces(value, path, photo, deepest - 1)
    else:
        raise FocusError(f"{path}: expected points of faces, got {found!r:.80}")


def _json_points(found: Any) -> Array | None:
    """A list of points, or the dictionary of parts of one face; None: it is something else."""
    if isinstance(found, dict) and found.keys() == _PARTS.keys():
        points = np.full((LANDMARK_COUNT, 2), np.nan)
        for part, indices in _PARTS.items():
            values = _json_points(found[part])
            if values is None or len(values) != len(indices):
                return None
            points[list(indices)] = values
        return points
    if not isinstance(found, list) or not found:
        return None
    pairs: list[Any] = [[value.get("x"), value.get("y")] if isinstance(value, dict) else value for value in found]
    if not all(isinstance(pair, list) and len(pair) in (2, 3) and all(map(_is_number, pair)) for pair in pairs):
        return None
    return np.array([[float(value) for value in pair[:2]] for pair in pairs])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
