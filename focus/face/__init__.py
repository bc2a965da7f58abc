"""The face: morphable model, camera, lighting and renderer."""

from focus.face.camera import Camera
from focus.face.model import MorphableModel
from focus.face.parameters import FaceParameters
from focus.face.renderer import Renderer, Rendering

__all__ = ["Camera", "FaceParameters", "MorphableModel", "Renderer", "Rendering"]
