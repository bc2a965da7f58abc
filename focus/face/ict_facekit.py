"""ICT-FaceKit's folder FaceXModel (Li et al. 2020, MIT licence): Wavefront OBJ files and vertex_indices.json.

``generic_neutral_mesh.obj`` is the mean, ``identity000.obj`` and those that follow are the mean moved by one standard
deviation of a component, and every name under "expressions" in the JSON file is an OBJ file of the mean with that
expression at weight 1. All have the same vertices, in centimetres.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError
from focus.face.model import LANDMARK_COUNT

NEUTRAL = "generic_neutral_mesh.obj"
_INDICES = "vertex_indices.json"
_MILLIMETRES = 10.0
_FACE = "M_Face"
# Of the other materials, M_BackHead is the neck and the sockets of mouth and eyes, and what lies on the eyes (tears,
# shadows, lashes) is made for translucent rendering: drawn opaque, it would hide them.
_MATERIALS = (_FACE, "M_ScleraLeft", "M_IrisLeft", "M_ScleraRight", "M_IrisRight")

Array = NDArray[Any]


class _Triangles(NamedTuple):
    """Triangles of the materials that are kept; numbers are those of the file, from 0."""

    vertices: NDArray[np.int64]  # [F, 3]
    uv: NDArray[np.float64] | None  # [F, 3, 2] of each corner, each in its own tile


def read_ict_facekit(folder: Path, landmarks68: Sequence[int] | None = None) -> dict[str, Array]:
    """The face and the eyeballs of the model, in the names and units of our array files.

    Args:
        folder: has `NEUTRAL` in it.
        landmarks68: vertices of `NEUTRAL`, from 0; None: those of vertex_indices.json.

    Returns:
        mean ``[V, 3]``, identity ``[Ki, V, 3]`` and expression ``[Ke, V, 3]`` in mm, expression_names ``[Ke]``, faces
        ``[F, 3]``, landmarks68 ``[68]`` and, where the file has texture coordinates, uv ``[V, 2]``.

    Raises:
        FocusError: a file is missing, damaged or does not fit the others.
    """
    names, known = _read_indices(folder / _INDICES)
    mean = _read_positions(folder / NEUTRAL)
    triangles = _read_triangles(folder / NEUTRAL, len(mean))
    kept, first, corners = np.unique(triangles.vertices, return_index=True, return_inverse=True)
    landmarks = np.asarray(known if landmarks68 is None else landmarks68)
    if landmarks.shape != (LANDMARK_COUNT,) or not np.isin(landmarks, kept).all():
        source = folder / _INDICES if landmarks68 is None else f"{folder}: landmarks68"
        strangers = f", of which not in the face: {landmarks[~np.isin(landmarks, kept)][:5].tolist()}"
        raise FocusError(
            f"{source}: expected {LANDMARK_COUNT} vertices of the face in {NEUTRAL} (material {_FACE}), got "
            f"{landmarks.size}{strangers if landmarks.shape == (LANDMARK_COUNT,) else ''}"
        )
    arrays: dict[str, Array] = {
        "mean": mean[kept] * _MILLIMETRES,
        "identity": _read_offsets(_identity_files(folder), mean, kept),
        "expression": _read_offsets([folder / f"{name}.obj" for name in names], mean, kept),
        "expression_names": np.array(names, dtype=np.str_),
        "faces": corners.reshape(-1, 3),
        "landmarks68": np.searchsorted(kept, landmarks),
    }
    if triangles.uv is not None:
        # A vertex on a seam has several; the model has room for one.
        arrays["uv"] = triangles.uv.reshape(-1, 2)[first]
    return arrays


def _read_indices(path: Path) -> tuple[list[str], list[int]]:
    """Names of the expressions, and the vertices of the landmarks."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names, landmarks = content["expressions"], content["idx_to_landmark_verts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FocusError(
            f"{path}: expected JSON of ICT-FaceKit with expressions and idx_to_landmark_verts, but it is missing, "
            f"damaged or something else ({error!r}); copy the folder again"
        ) from error
    # Names become file names: none may lead out of the folder.
    if not (isinstance(names, list) and all(isinstance(name, str) and re.fullmatch(r"\w+", name) for name in names)):
        raise FocusError(f"{path}: expressions: expected a list of names, got {str(names)[:80]}")
    if not (isinstance(landmarks, list) and all(type(index) is int for index in landmarks)):
        raise FocusError(f"{path}: idx_to_landmark_verts: expected a list of vertices, got {str(landmarks)[:80]}")
    return names, landmarks


def _identity_files(folder: Path) -> list[Path]:
    """``identity000.obj`` and those that follow, without a gap."""
    files = sorted(file for file in folder.glob("identity*.obj") if re.fullmatch(r"identity\d{3}", file.stem))
    for number, file in enumerate(files or [folder]):
        expected = folder / f"identity{number:03d}.obj"
        if file != expected:
            after = f", but {files[-1].name} is there" if files else ""
            raise FocusError(f"{expected}: no such file{after}; expected all components. Copy the folder again")
    return files


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FocusError(f"{path}: expected a Wavefront OBJ file, but {error}. Copy the folder again") from error


def _read_positions(path: Path) -> NDArray[np.float64]:
    """Vertices ``[V, 3]`` in the unit of the file."""
    lines = _read_lines(path)
    try:
        positions = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], dtype=np.float64)
    except ValueError as error:
        raise FocusError(f"{path}: damaged: a line of a vertex is not 'v x y z' ({error})") from error
    if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
        raise FocusError(
            f"{path}: expected a Wavefront OBJ file with vertices of three finite numbers, got {len(positions)} "
            "vertices, or some that are not; copy the folder again"
        )
    return positions


def _read_offsets(files: Sequence[Path], mean: NDArray[np.float64], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """How far each file moves the kept vertices: ``[len(files), len(kept), 3]`` mm."""
    offsets = np.empty((len(files), len(kept), 3), dtype=np.float32)
    for number, file in enumerate(files):
        positions = _read_positions(file)
        if positions.shape != mean.shape:
            raise FocusError(
                f"{file}: expected the {len(mean)} vertices of {NEUTRAL}, got {len(positions)}; "
                "is it from another version of ICT-FaceKit, or cut short? Copy the folder again"
            )
        offsets[number] = (positions - mean)[kept] * _MILLIMETRES
    return offsets


def _read_triangles(path: Path, vertex_count: int) -> _Triangles:
    """The polygons of `_MATERIALS`, each cut into triangles that share its first corner."""
    material, found = "none", set()
    texture: list[list[str]] = []
    corners: list[list[str]] = []
    for line in _read_lines(path):
        kind, _, rest = line.partition(" ")
        if kind == "usemtl":
            material = rest.strip()
        elif kind == "vt":
            texture.append(rest.split()[:2])
        elif kind == "f":
            found.add(material)
            if material in _MATERIALS:
                polygon = [corner.split("/") for corner in rest.split()]
                for second, third in itertools.pairwise(polygon[1:]):
                    corners += [polygon[0], second, third]
    if _FACE not in found or not corners:
        raise FocusError(
            f"{path}: expected polygons of the material {_FACE}, got those of: {', '.join(sorted(found)) or 'none'}. "
            "Old versions of ICT-FaceKit name no materials: get the current one"
        )
    has_uv = bool(texture) and all(len(corner) > 1 and corner[1] for corner in corners)
    try:
        vertices = np.array([corner[0] for corner in corners], dtype=np.int64).reshape(-1, 3) - 1
        uv = np.array(texture, dtype=np.float64).reshape(-1, 2)
        numbers = np.array([corner[1] for corner in corners], dtype=np.int64).reshape(-1, 3) - 1 if has_uv else None
    except ValueError as error:
        raise FocusError(f"{path}: damaged: polygons or texture coordinates are not numbers ({error})") from error
    for what, indices, count in (("vertices", vertices, vertex_count), ("texture coordinates", numbers, len(uv))):
        if indices is not None and not 0 <= indices.min() <= indices.max() < count:
            raise FocusError(
                f"{path}: damaged: polygons use {what} {indices.min() + 1} to {indices.max() + 1}, the file has {count}"
            )
    if numbers is None:
        return _Triangles(vertices, None)
    # Each material has a square tile of its own beside the others: u from 0 to 1, from 1 to 2, ...
    of_corners = uv[numbers]
    tile = np.floor(of_corners.mean(axis=1, keepdims=True))
    return _Triangles(vertices, np.clip(of_corners - tile, 0, 1))
