"""ICT-FaceKit's folder FaceXModel (Li et al. 2020, MIT licence): Wavefront OBJ files and vertex_indices.json.

``generic_neutral_mesh.obj`` is the mean, ``identity000.obj`` and those that follow are the mean moved by one standard
deviation of a component, and every name under "expressions" in the JSON file is an OBJ file of the mean with that
expression at weight 1. All have the same vertices, in centimetres.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.errors import FocusError
from focus.face.model import LANDMARK_COUNT
from focus.files import read_input
from focus.wavefront import Polygons, parse_wavefront

NEUTRAL = "generic_neutral_mesh.obj"
_INDICES = "vertex_indices.json"
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
    """The face and the eyeballs of the model, in the names of our array files.

    Args:
        folder: has `NEUTRAL` in it.
        landmarks68: vertices of `NEUTRAL`, from 0; None: those of vertex_indices.json.

    Returns:
        mean ``[V, 3]``, identity ``[Ki, V, 3]`` and expression ``[Ke, V, 3]`` in the unit of the files, faces
        ``[F, 3]``, landmarks68 ``[68]`` and, where the file has texture coordinates, uv ``[V, 2]``.

    Raises:
        FocusError: a file is missing, damaged or does not fit the others.
    """
    names, known = read_indices(folder / _INDICES)
    neutral = _read_mesh(folder / NEUTRAL)
    mean, triangles = neutral.vertices, _triangles(folder / NEUTRAL, neutral)
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
        "mean": mean[kept],
        "identity": _read_offsets(_identity_files(folder), mean, kept),
        "expression": _read_offsets([folder / f"{name}.obj" for name in names], mean, kept),
        "faces": corners.reshape(-1, 3),
        "landmarks68": np.searchsorted(kept, landmarks),
    }
    if triangles.uv is not None:
        # A vertex on a seam has several; the model has room for one.
        arrays["uv"] = triangles.uv.reshape(-1, 2)[first]
    return arrays


def read_indices(path: Path) -> tuple[list[str], list[int]]:
    """Names of the expressions, and the vertices of the landmarks."""
    try:
        content = json.loads(read_input(path, limits.TEXT_FILE).decode("utf-8-sig"))
        names, landmarks = content["expressions"], content["idx_to_landmark_verts"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FocusError(
            f"{path}: expected JSON of ICT-FaceKit with expressions and idx_to_landmark_verts, but it is missing, "
            f"damaged or something else ({repr(error)[:200]}); copy the folder again"
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


def _read_mesh(path: Path) -> Polygons:
    try:
        mesh = parse_wavefront(read_input(path, limits.MESH_FILE), path)
    except FocusError as error:
        raise FocusError(f"{error}. Copy the folder again") from error
    if not len(mesh.vertices) or not np.isfinite(mesh.vertices).all():
        raise FocusError(
            f"{path}: expected a Wavefront OBJ file with vertices of three finite numbers, got "
            f"{len(mesh.vertices)} vertices, or some that are not; copy the folder again"
        )
    return mesh


def _read_offsets(files: Sequence[Path], mean: NDArray[np.float64], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """How far each file moves the kept vertices: ``[len(files), len(kept), 3]``."""
    offsets = np.empty((len(files), len(kept), 3), dtype=np.float32)
    for number, file in enumerate(files):
        positions = _read_mesh(file).vertices
        if positions.shape != mean.shape:
            raise FocusError(
                f"{file}: expected the {len(mean)} vertices of {NEUTRAL}, got {len(positions)}; "
                "is it from another version of ICT-FaceKit, or cut short? Copy the folder again"
            )
        offsets[number] = (positions - mean)[kept]
    return offsets


def _triangles(path: Path, mesh: Polygons) -> _Triangles:
    """The polygons of `_MATERIALS`, each cut into triangles that share its first corner."""
    found = [name for number, name in enumerate(mesh.materials) if (mesh.face_materials == number).any()]
    if _FACE not in found:
        names = ", ".join(sorted(name[:40] or "none" for name in found)[:20]) or "none"
        raise FocusError(
            f"{path}: expected polygons of the material {_FACE}, got those of: {names}. "
            "Old versions of ICT-FaceKit name no materials: get the current one"
        )
    wanted = np.isin(mesh.face_materials, [mesh.materials.index(name) for name in _MATERIALS if name in found])
    vertices, numbers = mesh.faces[wanted], mesh.texture_faces[wanted]
    if not len(mesh.texture) or (numbers < 0).any():
        return _Triangles(vertices, None)
    if (numbers >= len(mesh.texture)).any() or not np.isfinite(mesh.texture).all():
        raise FocusError(
            f"{path}: damaged: polygons use texture coordinates that are not there (it has {len(mesh.texture)}) or are "
            "not finite. Copy the folder again"
        )
    # Each material has a square tile of its own beside the others: u from 0 to 1, from 1 to 2, ...
    of_corners = mesh.texture[numbers]
    tile = np.floor(of_corners.mean(axis=1, keepdims=True))
    return _Triangles(vertices, np.clip(of_corners - tile, 0, 1))
