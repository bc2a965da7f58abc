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

from focus.errors import FocusError
from focus.face.model import NOW_LANDMARK_COUNT

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
    data = _read(path)
    if not data.strip():
        raise FocusError(f"{path}: the file is empty; write the mesh again")
    mesh = _parse_obj(path, data) if path.suffix.lower() == ".obj" else _parse_ply(path, data)
    count = len(mesh.vertices)
    if count == 0 or len(mesh.faces) == 0:
        raise FocusError(f"{path}: expected vertices and faces, got {count} vertices and {len(mesh.faces)} faces")
    bad = int((~np.isfinite(mesh.vertices)).any(axis=1).sum())
    if bad:
        raise FocusError(f"{path}: {bad} of {count} vertices are not finite (NaN or infinite); write the mesh again")
    if mesh.faces.min() < 0 or mesh.faces.max() >= count:
        raise FocusError(
            f"{path}: a face names vertex {int(mesh.faces.max())} (from 0) of {count}; the file is cut short or damaged"
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
    data = _read(path)
    try:
        if path.suffix.lower() == ".npy":
            # Never unpickles: a file of objects is refused.
            points = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float64)
        else:
            rows = [line.replace(",", " ").split() for line in data.decode().splitlines() if line.strip()]
            points = np.array(rows, dtype=np.float64)
    except Exception as error:  # damaged archives and headers raise nearly anything
        raise FocusError(f"{path}: cannot be read as landmarks ({type(error).__name__}: {error})") from error
    return _checked_landmarks(path, points)


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
            points.append([float(attributes[axis]) for axis in "xyz"])

    def refuse(*_: Any) -> None:
        raise FocusError(f"{path}: declares XML entities, which no PickedPoints file of MeshLab does; not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(_read(path), True)
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FocusError(f"{path}: no such file") from error
    except OSError as error:
        raise FocusError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse_obj(path: Path, data: bytes) -> Mesh:
    lines = data.splitlines()
    try:
        # Three numbers; a colour may follow.
        positions = [line.split()[1:4] for line in lines if line[:2] in (b"v ", b"v\t")]
        vertices = np.array(positions, dtype=np.float64).reshape(len(positions), 3)
        corners = [
            [int(corner.partition(b"/")[0]) for corner in line.split()[1:]]
            for line in lines
            if line[:2] in (b"f ", b"f\t")
        ]
        triangles = [(face[0], face[i], face[i + 1]) for face in corners for i in range(1, len(face) - 1)]
        faces = np.array(triangles, dtype=np.int64).reshape(-1, 3)
    except (ValueError, OverflowError) as error:
        raise FocusError(f"{path}: damaged: not a line of a Wavefront OBJ file ({error})") from error
    if (faces < 1).any():
        raise FocusError(
            f"{path}: a face names vertex {int(faces.min())}; expected numbers from 1 (none that count back)"
        )
    return Mesh(vertices, faces - 1)


def _parse_ply(path: Path, data: bytes) -> Mesh:
    import trimesh

    exchange: Any = trimesh.exchange
    try:
        content = exchange.ply.load_ply(io.BytesIO(data))
        vertices = np.asarray(content["vertices"], dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(content["faces"], dtype=np.int64).reshape(-1, 3)
    except Exception as error:  # trimesh raises many kinds for damaged files
        raise FocusError(f"{path}: cannot be read as a PLY file of triangles ({error!r})") from error
    return Mesh(vertices, faces)
