"""Faces by MediaPipe: BlazeFace finds them, the attention mesh finds their points, in two of its interfaces.

Up to 0.10.21 the wheel of MediaPipe holds the models (``mediapipe.solutions``). Newer ones have none and take a file,
``face_landmarker.task`` (``mediapipe.tasks``). Bazarevsky et al., BlazeFace, 2019; Grishchenko et al., Attention Mesh,
2020.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.data.detection.detectors import DetectedFace
from focus.data.detection.pixels import cut, intersection_over_union, part
from focus.data.detection.quiet import quiet_natives
from focus.data.mesh_points import MESH_COUNTS, ibug_from_mesh
from focus.errors import FocusError
from focus.files import check_input

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

MODEL_VARIABLE = "FOCUS_FACE_LANDMARKER"
"""Environment variable with the path of a ``face_landmarker.task``."""

_WIDEST = 640
"""Pixels of the longer side of a picture in which faces are looked for; the networks see 128 and 192."""
_LEAST_SCORE = 0.3
_CROP, _LOOKS = 384, (2.0, 2.5, 3.0)
"""Pixels of the crops in which the mesh is found, and their sides in sides of the face's box. The mean of three is
steadier than any: points move by 0.8% of the distance of the eyes between runs on other crops, not by 0.9%, and no face
of 102 is lost."""
_OVERLAP = 0.4
"""Intersection over union from which two boxes are one face."""
_MOST_FACES = 50
_CLEAR = 0.965
"""Agreement of the looks at a face that cannot be one upside down: those that are read the wrong way round have 0.96 at
most. The eyes of a face that is upside down may be taken for its mouth."""

_STANDING = 0.06
"""By how much the score upside down must be better for a face that stands: most do, and masks hide which."""


class _Place(NamedTuple):
    """Where a face is, before its points are known."""

    score: float
    box: tuple[float, float, float, float]
    roll: float
    """Radians from the image's x axis to the line of the eyes."""


class _Look(NamedTuple):
    """A face that was looked at in crops of its own."""

    mesh: Array
    """[468 or 478, 2] pixels of the image."""
    agreement: float
    score: float


class _Models(Protocol):
    """What both interfaces can do."""

    def places(self, image: Image) -> list[_Place]: ...

    def mesh(self, image: Image) -> Array | None:
        """[468 or 478, 2] pixels of the only face of a crop."""

    def likeness(self, image: Image) -> float | None:
        """How much a crop looks like an upright face, 0 to 1; None: nobody can tell."""


class MediaPipeDetector:
    """Every face that MediaPipe finds in an image, each looked at again in upright crops of its own.

    The score is the mean of BlazeFace's in the crop, where the interface tells it, and of how well the looks agree.
    """

    def __init__(self, models: _Models) -> None:
        self._models = models

    def __call__(self, image: Image, /) -> list[DetectedFace]:
        """The faces of an image."""
        height, width = image.shape[:2]
        view = part(image, 0, 0, width, height, _WIDEST)
        faces = []
        with quiet_natives():
            for place in distinct(self._models.places(view.image), _OVERLAP):
                left, top, right, bottom = place.box
                box = view.to_image(np.array([[left, top], [right, bottom]]))
                side = max(float((box[1] - box[0]).max()), 1.0)
                look = self._look(image, box.mean(axis=0), side, place.roll)
                standing = abs(place.roll) < np.pi / 2
                if look is None or look.agreement < _CLEAR:
                    least = None if look is None else look.score + (_STANDING if standing else 0.0)
                    look = self._look(image, box.mean(axis=0), side, place.roll + np.pi, least) or look
                if look is not None:
                    (x0, y0), (x1, y1) = look.mesh.min(axis=0).tolist(), look.mesh.max(axis=0).tolist()
                    faces.append(DetectedFace(ibug_from_mesh(look.mesh), look.score, (x0, y0, x1, y1)))
        return faces

    def _look(self, image: Image, center: Array, side: float, roll: float, least: float | None = None) -> _Look | None:
        """What is to be seen at a place; None: no face, or none that has a score above `least`."""
        crops = [cut(image, (center[0], center[1]), factor * side, _CROP, roll) for factor in _LOOKS[:1]]
        likeness = self._models.likeness(crops[0].image)
        if least is not None and likeness is not None and (likeness + 1) / 2 <= least:
            return None
        crops += [cut(image, (center[0], center[1]), factor * side, _CROP, roll) for factor in _LOOKS[1:]]
        meshes = [crop.to_image(mesh) for crop in crops if (mesh := self._models.mesh(crop.image)) is not None]
        if not meshes:
            return None
        agreement = _agreement(meshes)
        score = agreement if likeness is None else (agreement + likeness) / 2
        return None if least is not None and score <= least else _Look(np.mean(meshes, axis=0), agreement, score)


def _agreement(meshes: list[Array]) -> float:
    """1 where all looks at a face agree, 0.5 where they differ by a tenth of the face's size, or all but one failed."""
    if len(meshes) < 2:
        return 0.5
    mesh = np.mean(meshes, axis=0)
    size = float(np.ptp(mesh, axis=0).max())
    spread = float(np.mean([np.linalg.norm(other - mesh, axis=1) for other in meshes])) / max(size, 1.0)
    return float(np.exp2(-10 * spread))


def distinct(places: list[_Place], overlap: float) -> Iterator[_Place]:
    """Of places that are one face the surest, the surest first."""
    kept: list[_Place] = []
    for place in sorted(places, key=lambda place: -place.score):
        if all(intersection_over_union(place.box, other.box) < overlap for other in kept):
            kept.append(place)
            yield place


class _Solutions:
    """``mediapipe.solutions``, with the models of the wheel."""

    def __init__(self, mediapipe: ModuleType) -> None:
        solutions = mediapipe.solutions
        self._finders = [
            solutions.face_detection.FaceDetection(model_selection=range_, min_detection_confidence=_LEAST_SCORE)
            for range_ in (0, 1)  # up to two metres, up to five
        ]
        self._mesh = solutions.face_mesh.FaceMesh(
            static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=_LEAST_SCORE
        )

    def places(self, image: Image) -> list[_Place]:
        height, width = image.shape[:2]
        found = []
        for finder in self._finders:
            for detection in finder.process(image).detections or ():
                where = detection.location_data
                box = where.relative_bounding_box
                left, top = box.xmin * width, box.ymin * height
                corners = (left, top, left + box.width * width, top + box.height * height)
                found.append(_Place(float(detection.score[0]), corners, _roll(where, width, height)))
        return found

    def likeness(self, image: Image) -> float | None:
        found = self._finders[0].process(image).detections or ()
        level = [float(face.score[0]) for face in found if abs(_roll(face.location_data, 1.0, 1.0)) < np.pi / 4]
        return max(level, default=0.0)

    def mesh(self, image: Image) -> Array | None:
        faces = self._mesh.process(image).multi_face_landmarks
        return _pixels(faces[0].landmark, image) if faces else None


def _roll(where: Any, width: float, height: float) -> float:
    """Radians from the x axis to the line of the eyes of a detection."""
    right, left = where.relative_keypoints[:2]
    return float(np.arctan2((left.y - right.y) * height, (left.x - right.x) * width))


class _Tasks:
    """``mediapipe.tasks``, with a model from a file."""

    def __init__(self, mediapipe: ModuleType, model: Path) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        check_input(model, limits.WEIGHTS_FILE)
        self._mediapipe = mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
            num_faces=_MOST_FACES,
            min_face_detection_confidence=_LEAST_SCORE,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise FocusError(
                f"{model}: MediaPipe cannot use it ({str(error).splitlines()[0]:.300}); expected face_landmarker.task"
            ) from error

        atexit.register(self._landmarker.close)  # what it does by itself at the end of Python fails

    def places(self, image: Image) -> list[_Place]:
        found = []
        for mesh in self._meshes(image):
            (left, top), (right, bottom) = mesh.min(axis=0).tolist(), mesh.max(axis=0).tolist()
            across = mesh[263] - mesh[33]
            found.append(_Place(1.0, (left, top, right, bottom), float(np.arctan2(across[1], across[0]))))
        return found

    def likeness(self, image: Image) -> float | None:
        return None

    def mesh(self, image: Image) -> Array | None:
        meshes = self._meshes(image)
        center = np.array(image.shape[1::-1]) / 2
        return min(meshes, key=lambda mesh: float(np.linalg.norm(mesh.mean(axis=0) - center)), default=None)

    def _meshes(self, image: Image) -> list[Array]:
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=image)
        return [_pixels(face, image) for face in self._landmarker.detect(picture).face_landmarks]


def _pixels(landmarks: Any, image: Image) -> Array:
    """Points that MediaPipe gives in fractions of an image's size, from edge to edge.

    Taken from centre to centre, those of a crop and of the same mirrored differ by 0.94 (0.07) pixels.
    """
    height, width = image.shape[:2]
    points = np.array([(point.x * width - 0.5, point.y * height - 0.5) for point in landmarks], dtype=np.float64)
    if len(points) not in MESH_COUNTS:
        raise FocusError(
            f"mediapipe: expected a mesh of {' or '.join(map(str, MESH_COUNTS))} points, got {len(points)}"
        )
    return points


def named_model() -> Path | None:
    """What `MODEL_VARIABLE` names."""
    named = os.environ.get(MODEL_VARIABLE)
    return Path(named) if named else None


def make_mediapipe(model: Path | None = None) -> MediaPipeDetector:
    """The detector, with the models of the wheel or of a file.

    Args:
        model: ``face_landmarker.task``; None: what `MODEL_VARIABLE` names, or the models in MediaPipe itself.

    Raises:
        FocusError: no MediaPipe, or one that has no models in it and was given no file.
    """
    model = model or named_model()
    with quiet_natives():
        mediapipe = _import()
        if model is not None:
            return _warm(_Tasks(mediapipe, model))
        if not hasattr(mediapipe, "solutions"):
            raise FocusError(
                f"mediapipe {mediapipe.__version__} has no models in it: install one that has (pip install "
                '"mediapipe>=0.10.14,<0.10.30", Python 3.12 or older), or give the file face_landmarker.task by '
                f"--detector-model or {MODEL_VARIABLE}; or give landmarks of another program by --landmarks"
            )
        return _warm(_Solutions(mediapipe))


def _warm(models: _Models) -> MediaPipeDetector:
    """The detector, once it has seen a picture: threads of its graphs write logs until then."""
    nothing = np.zeros((64, 64, 3), dtype=np.uint8)
    models.places(nothing)
    models.mesh(nothing)
    return MediaPipeDetector(models)


def _import() -> ModuleType:
    try:
        import mediapipe
    except ImportError as error:
        raise FocusError(
            f"faces are found by mediapipe, and importing it failed ({error}). Install it with: pip install "
            '"focus-face[detect]"; or give the landmarks of the photos by --landmarks FILE'
        ) from error
    return mediapipe  # type: ignore[no-any-return]
