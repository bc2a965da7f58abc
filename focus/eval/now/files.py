"""Mesh and landmark files of the NoW challenge: read as they are written, and refused by name where damaged.

Positions are never merged, split at texture seams or moved: an error is measured at each vertex that a scan has.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.arrays import read_array
from focus.errors import FocusError
from focus.eval.now.ply import parse_ply
from focus.face.model import NOW_LANDMARK_COUNT
from focus.files import read_input, read_text
from focus.wavefront import parse_wavefront

MESH_SUFFIXES = (".obj", ".ply")
LANDMARK_SUFFIXES = (".npy", ".txt")

Array = NDArray[np.float64]


class Mesh(NamedTuple):
    """Triangles in the unit of their file."""

    vertices: Array
    """``[V, 3]``, finite."""
    faces: NDArray[np.int64]
    """``[F, 3]``."""


def read_mesh(path: Path) -> Mesh:
    """Reads a Wavefront OBJ or a PLY file; polygons become fans of triangles.

    Raises:
        FocusError: missing, empty, damaged, without faces, faces of vertices that are not there, or positions that are
            not finite.
    """
    data = read_input(path, limits.MESH_FILE)
    if not data.strip():
        raise FocusError(f"{path}: the file is empty; write the mesh again")
    if path.suffix.lower() == ".obj":
        polygons = parse_wavefront(data, path)
        mesh = Mesh(polygons.vertices, polygons.faces)
    else:
        mesh = Mesh(*parse_ply(data, path))
    count = len(mesh.vertices)
    if count == 0 or len(mesh.faces) == 0:
        raise FocusError(f"{path}: expected vertices and faces, got {count} vertices and {len(mesh.faces)} faces")
    bad = int((~np.isfinite(mesh.vertices)).any(axis=1).sum())
    if bad:
        raise FocusError(f"{path}: {bad} of {count} vertices are not finite (NaN or infinite); write the mesh again")
    if mesh.faces.min() < 0 or mesh.faces.max() >= count:
        raise FocusError(
            f"{path}: faces name vertices {mesh.faces.min()} to {mesh.faces.max()} (from 0), the file has {count}; it "
            "is cut short or damaged"
        )
    return mesh


def non_manifold_edges(faces: NDArray[np.int64]) -> int:
    """Number of edges that more than two triangles share."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, counts = np.unique(edges[:, 0] * (int(faces.max()) + 1) + edges[:, 1], return_counts=True)
    return int((counts > 2).sum())


def read_landmarks(path: Path) -> Array:
    """The seven landmarks of a prediction, ``[7, 3]``, from .npy, or from text with one point in a line.

    Raises:
        FocusError: missing, damaged, another number of points, or positions that are not finite.
    """
    return _checked_landmarks(path, _read_array(path) if path.suffix.lower() == ".npy" else _read_points(path))


def _read_array(path: Path) -> Array:
    data = read_input(path, limits.TEXT_FILE)
    try:
        points = read_array(io.BytesIO(data), len(data))
    except ValueError as error:
        raise FocusError(
            f"{path}: cannot be read as landmarks ({error}); expected an array [{NOW_LANDMARK_COUNT}, 3] of numpy.save"
        ) from error
    if points.dtype.kind not in "fiu":
        raise FocusError(f"{path}: cannot be read as landmarks: an array of {points.dtype}, not of real numbers")
    with np.errstate(invalid="ignore", over="ignore"):  # a NaN that signals; it is refused by the caller
        return np.asarray(points, dtype=np.float64)


def _read_points(path: Path) -> Array:
    rows = [line.split("#")[0].replace(",", " ").split() for line in read_text(path, limits.TEXT_FILE).splitlines()]
    try:
        return np.array([[float(word) for word in row] for row in rows if row], dtype=np.float64)
    except ValueError as error:  # no number, or lines of different lengths
        raise FocusError(
            f"{path}: cannot be read as landmarks ({str(error)[:80]}); expected a point in each line: three numbers, "
            "apart by spaces or commas"
        ) from error


def read_picked_points(path: Path) -> Array:
    """The seven landmarks of a scan, ``[7, 3]``, from a PickedPoints file of MeshLab (.pp), in the file's order.

    Nothing outside of the file is opened, and files that declare entities are refused.

    Raises:
        FocusError: missing, damaged, a point that was not picked, another number of points, or not finite.
    """
    points: list[list[float]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "point":
            if attributes.get("active", "1") != "1":
                raise FocusError(f"{path}: point {attributes.get('name', len(points))!r} was not picked (active=0)")
            missing = [axis for axis in "xyz" if axis not in attributes]
            if missing:
                label = attributes.get("name", len(points))
                raise FocusError(
                    f"{path}: cannot be read as PickedPoints of MeshLab: point {label!r} has no {missing[0]}"
                )
            points.append([float(attributes[axis]) for axis in "xyz"])

    def refuse(*_: Any) -> None:
        raise FocusError(f"{path}: declares XML entities, which no PickedPoints file of MeshLab does; not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(read_input(path, limits.TEXT_FILE), True)
    except FocusError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: an encoding that nobody knows, too
        raise FocusError(f"{path}: cannot be read as PickedPoints of MeshLab ({error!r})") from error
    return _checked_landmarks(path, np.array(points, dtype=np.float64))


def _checked_landmarks(path: Path, points: Array) -> Array:
    if points.shape != (NOW_LANDMARK_COUNT, 3):
        found = "none" if points.size == 0 else f"an array of shape {list(points.shape)}"
        raise FocusError(
            f"{path}: expected {NOW_LANDMARK_COUNT} landmarks of three numbers (four eye corners, nose base, two mouth "
            f"corners), got {found}"
        )
    if not np.isfinite(points).all():
        raise FocusError(f"{path}: landmarks that are not finite (NaN or infinite)")
    return points
