"""What finds faces and their landmarks in a photo: a small protocol, and the names under which detectors are known."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from focus.data.landmark_rows import LANDMARK_COUNT
from focus.errors import FocusError

MEDIAPIPE = "mediapipe"
"""The detector of the extra ``detect``, and the default."""


class DetectedFace(NamedTuple):
    """A face that a detector found."""

    points: NDArray[np.float64]
    """[68, 2] pixels of the image in iBUG's order: x right, y down, pixel centres at integers."""
    score: float
    """How sure the detector is that this is a face, 0 to 1; faces of one detector are compared by it."""
    box: tuple[float, float, float, float]
    """left, top, right, bottom of the face, pixels."""


class LandmarkDetector(Protocol):
    """Any function from an image, uint8 [H, W, 3] RGB, to the faces in it, in any order.

    It need not look for small or turned faces: `search_faces` does that with any detector.
    """

    def __call__(self, image: NDArray[np.uint8], /) -> Iterable[DetectedFace]: ...


DetectorFactory = Callable[[Path | None], LandmarkDetector]
"""Makes a detector; it is given the file of its model, or None."""

_FACTORIES: dict[str, DetectorFactory] = {}


def register_detector(name: str, factory: DetectorFactory) -> None:
    """Makes a detector known by a name, for `make_detector` and everything that takes the name of one.

    Processes that help (`workers`) get the factory, not the detector: it must be a function or class of a module.

    Raises:
        FocusError: a name that is not of letters, digits, dashes and underscores.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise FocusError(f"register_detector: expected a name of letters, digits, - and _, got {name!r}")
    _FACTORIES[name] = factory


def find_factory(name: str) -> DetectorFactory:
    """What makes the detector of a name: a registered one, or ``module:function``, a `LandmarkDetector` of an
    importable module.

    Raises:
        FocusError: nothing of this name; the message lists those that are registered.
    """
    if name in _FACTORIES:
        return _FACTORIES[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        known = ", ".join(sorted(_FACTORIES))
        raise FocusError(
            f"detector {name!r}: expected one of {known}, or module:function for a function of your own "
            "(register_detector adds names)"
        )
    return _OfModule(module, attribute)


def make_detector(name: str = MEDIAPIPE, model: Path | None = None) -> LandmarkDetector:
    """A detector by its name; see `find_factory`.

    Args:
        name: of a registered detector, or ``module:function``.
        model: file of its model; None: its default.

    Raises:
        FocusError: an unknown name, or the detector lacks something, such as its package; the message says what to do.
    """
    return find_factory(name)(model)


class _OfModule:
    """Factory of a function of a module, which other processes can import, too."""

    def __init__(self, module: str, attribute: str) -> None:
        self._module, self._attribute = module, attribute

    def __call__(self, model: Path | None) -> LandmarkDetector:
        name = f"detector {self._module}:{self._attribute}"
        if model is not None:
            raise FocusError(f"{name}: takes no model file; leave it out")
        try:
            found = getattr(importlib.import_module(self._module), self._attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise FocusError(
                f"{name}: cannot be imported ({error}); expected a function of a module on Python's path (PYTHONPATH)"
            ) from error
        if not callable(found):
            raise FocusError(f"{name}: expected a function from an image to its faces, got {type(found).__name__}")
        detector: LandmarkDetector = found
        return detector


def checked(faces: Iterable[DetectedFace]) -> list[DetectedFace]:
    """What a detector returned, as arrays; faces of no size are left out.

    Raises:
        FocusError: something else than faces.
    """
    if not isinstance(faces, Iterable):
        raise FocusError(f"detector: expected a list of faces, empty where there is none, got {type(faces).__name__}")
    result = []
    for face in faces:
        try:
            points = np.array(face.points, dtype=np.float64)
            score = float(face.score)
            left, top, right, bottom = (float(value) for value in face.box)
        except (AttributeError, TypeError, ValueError) as error:
            raise FocusError(f"detector: expected faces with points, score and box, got {face!r:.200}") from error
        if (
            points.shape != (LANDMARK_COUNT, 2)
            or not np.isfinite([*points.flat, score, left, top, right, bottom]).all()
        ):
            raise FocusError(
                f"detector: expected finite points [{LANDMARK_COUNT}, 2], score and box, got points of shape "
                f"{list(points.shape)}, score {score} and box {[left, top, right, bottom]}"
            )
        if not 0 <= score <= 1:
            raise FocusError(f"detector: expected a score in [0, 1], 1 for a face that is sure, got {score}")
        if right > left and bottom > top:
            result.append(DetectedFace(points, score, (left, top, right, bottom)))
    return result


def _mediapipe(model: Path | None) -> LandmarkDetector:
    from focus.data.detection.mediapipe_mesh import make_mediapipe

    return make_mediapipe(model)


register_detector(MEDIAPIPE, _mediapipe)
