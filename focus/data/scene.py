"""Where the face is in a picture: what must be known to draw things round it and over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from focus.data.drawing import Array
from focus.face import Camera, FaceParameters, MorphableModel, Rendering

_ANCHOR_LANDMARKS: dict[str, list[int]] = {
    "left_eye": list(range(36, 42)),
    "right_eye": list(range(42, 48)),
    "nose": [29, 30],
    "mouth": list(range(48, 60)),
    "chin": [7, 8, 9],
    "left_cheek": [2, 3, 31, 48],
    "right_cheek": [13, 14, 35, 54],
    "forehead": list(range(17, 27)),
}
HEAD_CENTER, HEAD_RADII = (0, 18, -14), (73, 94, 93)
"""Of an average head, an ellipsoid: mm, model axes, from the middle between the ears."""
ANCHORS = tuple(_ANCHOR_LANDMARKS)
"""Names of places in the face; left and right are those of the image."""


@dataclass(frozen=True)
class Scene:
    """A rendered face in a picture of S x S pixels."""

    size: int
    parameters: FaceParameters
    """A batch of one."""
    landmarks: NDArray[np.float64]
    """[68, 2] pixels."""
    average_landmarks: Callable[[], NDArray[np.float64]]
    """Gives [68, 2] pixels: those of the mean face in the same pose. Only occluded faces need them."""
    rotation: NDArray[np.float64]
    """[3, 3], model axes (x right, y up, z out of the face) to camera axes (x right, y down, z away)."""
    head: NDArray[np.float64]
    """[3] pixels (x, y, depth 0): the middle of the head, between the first and the last jaw landmark."""
    pixels_per_mm: float
    lighting: NDArray[np.float64]
    """[3, 9] spherical-harmonics coefficients."""
    skin: Array
    """[3] mean albedo of the face."""
    hair: Array
    """[3] albedo of this person's hair."""
    face: Array
    """[S, S, 3] the rendered face, 0 elsewhere; hard light may exceed 1."""
    face_mask: NDArray[np.bool_]
    """[S, S]."""
    age: float = 0.0
    """From 0 (twenty years, or as the model has it) to 1 (eighty)."""

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """[2, 2] rows: unit vectors to the right and down of the upright face, in picture coordinates (its roll)."""
        up = self.rotation[:2, 1]
        down = -up / max(float(np.linalg.norm(up)), 1e-6)
        return np.stack([np.array([down[1], -down[0]]), down])

    @cached_property
    def roll(self) -> float:
        """Radians, clockwise in the picture."""
        return float(np.arctan2(self.axes[0, 1], self.axes[0, 0]))

    def at(self, anchor: str) -> NDArray[np.float64]:
        """[2] pixels of a place in the face, one of `ANCHORS`."""
        point: NDArray[np.float64] = self.landmarks[_ANCHOR_LANDMARKS[anchor]].mean(axis=0)
        return self.offset(point, 0, -25) if anchor == "forehead" else point

    def offset(self, point: NDArray[np.float64], right: float, down: float) -> NDArray[np.float64]:
        """A point moved by millimetres along the axes of the upright face."""
        moved: NDArray[np.float64] = point + self.pixels_per_mm * (np.array([right, down]) @ self.axes)
        return moved

    def project(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Millimetres from the middle of the head, model axes -> (x, y, depth) pixels (scaled orthographic)."""
        projected: NDArray[np.float64] = self.head + self.pixels_per_mm * (self.rotation @ point)
        return projected

    @cached_property
    def face_area(self) -> int:
        """Pixels of the rendered face."""
        return int(self.face_mask.sum())

    def skin_like(self, rng: np.random.Generator) -> Array:
        """An albedo close to this face's own (mostly), or of another person."""
        if rng.random() >= 0.75:
            return other_skin(rng)
        tone = self.skin * rng.uniform(0.88, 1.12) * (1 + 0.04 * rng.standard_normal(3))
        albedo: Array = np.clip(tone, 0.02, 1).astype(np.float32)
        return albedo


@torch.no_grad()
def scene_of(
    model: MorphableModel,
    parameters: FaceParameters,
    rendering: Rendering,
    camera: Camera,
    *,
    skin: NDArray[np.floating],
    hair: Array,
    age: float = 0.0,
) -> Scene:
    """The scene of one rendered face.

    Args:
        model: of the face.
        parameters: B = 1.
        rendering: of them, with `camera`.
        camera: of pictures of S x S pixels.
        skin: [3] mean albedo of the face.
        hair: [3] albedo of the hair.
        age: 0 to 1; see `Scene.age`.
    """
    rotation = camera.rotation_matrix(parameters.rotation)
    x, y, depth = rendering.screen_vertices[0, model.landmarks68[[0, 16]]].double().mean(dim=0).tolist()

    def average_landmarks() -> NDArray[np.float64]:
        average = model.mean_shape[model.landmarks68]
        projected = camera.project(camera.transform(average[None], rotation, parameters.translation))
        points: NDArray[np.float64] = projected[0, :, :2].double().numpy()
        return points

    return Scene(
        size=rendering.image.shape[-1],
        parameters=parameters,
        landmarks=rendering.landmarks[0].double().numpy(),
        average_landmarks=average_landmarks,
        rotation=rotation[0].double().numpy(),
        head=np.array([x, y, 0.0]),
        pixels_per_mm=camera.focal / depth,
        lighting=parameters.lighting[0].double().numpy(),
        skin=np.clip(skin, 0.03, 1).astype(np.float32),
        hair=hair,
        face=np.maximum(rendering.image[0].permute(1, 2, 0).numpy(), 0),
        face_mask=rendering.mask[0, 0].numpy() > 0.5,
        age=age,
    )


def other_skin(rng: np.random.Generator) -> Array:
    """A skin albedo from dark to light."""
    dark, light = np.array([0.24, 0.15, 0.11]), np.array([0.80, 0.62, 0.53])
    tone = dark + rng.random() * (light - dark) + 0.02 * rng.standard_normal(3)
    albedo: Array = np.clip(tone, 0.02, 1).astype(np.float32)
    return albedo
