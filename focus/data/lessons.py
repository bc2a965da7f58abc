"""What a teacher says of a photo: its face and its mask, kept in a file, moved with the photo when that is changed.

A lesson is of a crop with a margin, so that a crop that is turned or moved still has all of it. Its face is seen by the
camera of FOCUS, the one with which networks see: what a turn, a shift or a mirror makes of the picture, it makes of
pose, shape and light, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus import limits
from focus.data.align import Similarity
from focus.errors import FocusError
from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.camera import DEFAULT_DISTANCE, angles_of, rotation_matrix
from focus.face.lighting import turned_lighting
from focus.files import read_input, write_files
from focus.sealed import DamagedError, open_json, open_tensors, seal_json, seal_tensors

if TYPE_CHECKING:
    from focus.data.batches import FaceBatch

KEY = "focus lesson"
_PARAMETERS = ("identity", "expression", "albedo", "rotation", "translation", "lighting")
_IMAGES = ("crop", "mask", "face")
_ODD_IN_X = (3, 4, 7)
"""Harmonics that change their sign where left and right are exchanged: those with one factor x."""


@dataclass
class Lessons:
    """What is to be learnt about the B faces of a batch."""

    parameters: FaceParameters
    """B faces, seen by the camera of FOCUS."""
    mask: Tensor
    """[B, 1, S, S] in [0, 1]: how likely the face is seen."""
    known: Tensor
    """[B, 1, S, S] in {0, 1}: where `mask` says anything."""
    weight: Tensor
    """[B] in [0, 1]: how far it is to be believed."""


def lessons_of(batch: FaceBatch) -> Lessons:
    """What a teacher says of a batch, or the truth about synthetic faces in its place.

    Raises:
        FocusError: neither is known.
    """
    if batch.lessons is not None:
        return batch.lessons
    if batch.parameters is None or batch.visible_mask is None:
        raise FocusError("teacher: expected faces with lessons, or synthetic ones, whose truth is known; got neither")
    ones = torch.ones_like(batch.visible_mask)
    return Lessons(batch.parameters, batch.visible_mask, ones, ones[:, 0, 0, 0])


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of one photo."""

    crop: NDArray[np.uint8]
    """[T, T, 3] sRGB, the crop of the network with a margin on each side."""
    mask: NDArray[np.uint8]
    """[T, T], 255 where the face is surely seen, 0 where it is surely not."""
    face: NDArray[np.bool_]
    """[T, T], where the teacher drew the face."""
    parameters: FaceParameters
    """B = 1."""
    weight: float
    """How far it is to be believed, 0 to 1."""
    seen: float
    """The part of the drawn face that is said to be seen, 0 to 1."""
    doubt: str | None = None
    """Why it is not believed at all; None where it is."""

    def save(self, path: Path) -> None:
        """Writes the file whole, or not at all.

        Raises:
            FocusError: the file system refused.
        """
        tensors = {name: value.contiguous() for name, value in self.parameters.items()}
        tensors |= {
            "crop": torch.from_numpy(self.crop),
            "mask": torch.from_numpy(self.mask),
            "face": torch.from_numpy(self.face.astype(np.uint8)),
        }
        values = {"weight": self.weight, "seen": self.seen, "doubt": self.doubt}
        _write(path, seal_tensors(tensors, KEY, values))

    @classmethod
    def load(cls, path: Path, model: MorphableModel, size: int) -> Lesson:
        """Reads a file of `save`.

        Args:
            path: the file.
            model: of its coefficients.
            size: T.

        Raises:
            FocusError: no such file; damaged; of another model or size.
        """
        try:
            values, tensors = open_tensors(read_input(path, limits.LESSON_FILE), KEY)
            if not isinstance(values.get("checksum"), str):
                raise DamagedError("it has no checksum")
            weight, seen, doubt = _fraction(values["weight"]), _fraction(values["seen"]), values["doubt"]
            if not (doubt is None or isinstance(doubt, str)):
                raise DamagedError(f"doubt: expected a text or nothing, got {doubt!r}")
            expected = {
                "identity": (1, model.identity_count),
                "expression": (1, model.expression_count),
                "albedo": (1, model.albedo_count),
                "rotation": (1, 3),
                "translation": (1, 3),
                "lighting": (1, 3, 9),
                "crop": (size, size, 3),
                "mask": (size, size),
                "face": (size, size),
            }
            for name, shape in expected.items():
                value, dtype = tensors[name], torch.uint8 if name in _IMAGES else torch.float32
                if tuple(value.shape) != shape or value.dtype != dtype:
                    raise DamagedError(f"{name}: expected {dtype} {list(shape)}, got {value.dtype} {list(value.shape)}")
                if name in _PARAMETERS and not bool(torch.isfinite(value).all()):
                    raise DamagedError(f"{name}: expected finite numbers")
        except (DamagedError, KeyError) as error:
            raise FocusError(
                f"{path}: no lesson that can be used: {error}. Take the file away: it is made anew"
            ) from error
        parameters = FaceParameters(*(tensors[name] for name in _PARAMETERS))
        crop, mask, face = (tensors[name].numpy() for name in _IMAGES)
        return cls(crop, mask, face > 0, parameters, weight, seen, doubt)


def _write(path: Path, data: bytes) -> None:
    """A file whole, or not at all. Raises `FocusError` where the file system refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: data})
    except OSError as error:
        raise FocusError(
            f"{path}: cannot be written ({error.strerror or error}). Make room, or choose another folder"
        ) from error


def save_doubt(file: Path, reason: str) -> None:
    """Writes down why there is no lesson, beside where it would be.

    Raises:
        FocusError: the file system refused.
    """
    _write(file.with_suffix(_DOUBT), seal_json({"doubt": reason}).encode())


def load_doubt(file: Path) -> str | None:
    """What `save_doubt` wrote for a lesson; None where it wrote nothing, or what cannot be read."""
    path = file.with_suffix(_DOUBT)
    if not path.exists():
        return None
    try:
        doubt = open_json(read_input(path, limits.TEXT_FILE))["doubt"]
    except (FocusError, DamagedError, KeyError):
        return None
    return doubt if isinstance(doubt, str) else None


_DOUBT = ".json"


def _fraction(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DamagedError(f"expected a number from 0 to 1, got {value!r}")
    return float(value)


class MirroredModel:
    """What the coefficients of a face become when left and right are exchanged.

    Vertices are paired with those nearest to their mirror image on the mean face. The mirrored face is then the one of
    the model that is nearest, by least squares: exact for a model that is symmetric and has the mirror image of each of
    its components, as blend shapes and components of variation have, nearly so for others.

    Args:
        model: the face.
    """

    def __init__(self, model: MorphableModel) -> None:
        mean = model.mean_shape.double()
        flip = mean.new_tensor((-1.0, 1.0, 1.0))
        pairs = _nearest(mean * flip, mean)
        self._identity = _mirror_matrix(model.identity_basis, pairs, flip)
        self._expression = _mirror_matrix(model.expression_basis, pairs, flip)
        self._albedo = _mirror_matrix(model.albedo_basis, pairs, torch.ones_like(flip))
        self._bounds = (0.0, 1.0) if model.expression_prior == "unit_interval" else (-torch.inf, torch.inf)

    def __call__(self, face: FaceParameters) -> FaceParameters:
        """The mirror image of B faces: shape, colour, pose and light."""
        identity, expression, albedo = (
            (value.double() @ matrix.to(value.device)).to(value.dtype)
            for value, matrix in (
                (face.identity, self._identity),
                (face.expression, self._expression),
                (face.albedo, self._albedo),
            )
        )
        lighting = face.lighting.clone()
        lighting[..., list(_ODD_IN_X)] *= -1
        return FaceParameters(
            identity=identity,
            expression=expression.clamp(*self._bounds),
            albedo=albedo,
            rotation=face.rotation * face.rotation.new_tensor((1.0, -1.0, -1.0)),
            translation=face.translation * face.translation.new_tensor((-1.0, 1.0, 1.0)),
            lighting=lighting,
        )


def _nearest(points: Tensor, among: Tensor) -> Tensor:
    """Index of the nearest of `among` ``[V, 3]`` for each of `points`: ``[V]``."""
    return torch.cat([torch.cdist(part, among).argmin(dim=1) for part in torch.split(points, 2048)])


def _mirror_matrix(basis: Tensor, pairs: Tensor, flip: Tensor) -> Tensor:
    """M ``[K, K]`` such that coefficients c become c M."""
    columns = basis.double().flatten(1).T  # [3 V, K]
    mirrored = (basis.double()[:, pairs] * flip).flatten(1).T
    matrix: Tensor = torch.linalg.lstsq(columns, mirrored).solution
    return matrix.T


def moved_face(face: FaceParameters, similarity: Similarity, mirrored: MirroredModel, camera: Camera) -> FaceParameters:
    """The face that a picture shows when it is mirrored, turned and scaled round its middle, and shifted.

    A turn of the picture is a turn of the camera, and so exact; a scale is taken for a change of distance, and a shift
    for one of place, which they are as long as the face is small before its distance.

    Args:
        face: B = 1, of the picture before.
        similarity: what is done to it.
        mirrored: of the face's model.
        camera: of the picture.
    """
    if similarity.mirror:
        face = mirrored(face)
    cos, sin = np.cos(similarity.angle), np.sin(similarity.angle)
    turn = face.rotation.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    rotation = turn @ rotation_matrix(face.rotation.double())
    place = face.translation.double() + turn.new_tensor([0.0, 0.0, DEFAULT_DISTANCE])
    place = place @ turn.T
    depth = place[:, 2] / similarity.scale
    shift = place.new_tensor(similarity.shift) * depth[:, None] / camera.focal
    # The same place in the picture, nearer by the scale: x and y stay as they are.
    translation = torch.cat([place[:, :2] + shift, depth[:, None] - DEFAULT_DISTANCE], dim=1)
    lighting = turned_lighting(face.lighting.double(), turn)
    return replace(
        face,
        rotation=angles_of(rotation).to(face.rotation.dtype),
        translation=translation.to(face.translation.dtype),
        lighting=lighting.to(face.lighting.dtype),
    )
