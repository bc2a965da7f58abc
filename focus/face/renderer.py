"""From parameters to a picture: shape, pose, shading and rasterization, all differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from focus import ops
from focus.face.camera import Camera
from focus.face.model import MorphableModel
from focus.face.parameters import FaceParameters
from focus.phases import marked, phase

_LEAST_SHARE = 1 / 256
"""Of a pixel that the face covers less of, the colour fades to black: it would be rounding, much enlarged."""


@dataclass
class Rendering:
    """What `Renderer` returns.

    Attributes:
        image: ``[B, 3, S, S]`` RGB, 0 outside the face, not clamped to [0, 1].
        mask: ``[B, 1, S, S]``, 1 where a pixel centre is covered by the face, else 0; constant for gradients. Where the
            renderer antialiases, between 0 and 1 at the outline, with gradients; whether a face is at a pixel is then
            said by `face_index`.
        vertices: ``[B, V, 3]`` mm, model space.
        screen_vertices: ``[B, V, 3]``, x and y in pixels, depth in mm.
        normals: ``[B, V, 3]``, unit length, camera space.
        colors: ``[B, V, 3]``, shaded RGB.
        landmarks: ``[B, 68, 2]`` pixels.
        face_index: ``[B, S, S]`` int32, the face of each pixel, -1 in the background.
    """

    image: Tensor
    mask: Tensor
    vertices: Tensor
    screen_vertices: Tensor
    normals: Tensor
    colors: Tensor
    landmarks: Tensor
    face_index: Tensor

    def single(self, index: int) -> Rendering:
        """One face of the batch, as a batch of one."""
        return Rendering(**{field.name: getattr(self, field.name)[index, None] for field in fields(self)})


def shade(
    camera_vertices: Tensor, albedo: Tensor, lighting: Tensor, topology: ops.Topology | Tensor
) -> tuple[Tensor, Tensor]:
    """Colours of vertices under spherical-harmonics light.

    Args:
        camera_vertices: ``[B, V, 3]`` mm, camera space.
        albedo: ``[B, V, 3]`` RGB.
        lighting: ``[B, 3, 9]``.
        topology: faces, counterclockwise seen from outside.

    Returns:
        Unit normals in camera space and shaded colours, both ``[B, V, 3]``.
    """
    normals = ops.vertex_normals(camera_vertices, topology)
    return normals, ops.sh_shading(normals, albedo, lighting)


def draw(
    screen_vertices: Tensor, colors: Tensor, topology: ops.Topology | Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws colours, or other attributes, of vertices; faces that look away from the camera are culled.

    Args:
        screen_vertices: ``[B, V, 3]``, pixels and depth.
        colors: ``[B, V, C]``, or ``[1, V, C]`` shared by the batch.
        topology: faces, counterclockwise seen from outside.
        size: height and width in pixels.

    Returns:
        Image ``[B, C, H, W]``, mask ``[B, 1, H, W]`` (0 or 1), and face index ``[B, H, W]``.
    """
    return ops.render(screen_vertices, colors, topology, size, cull="clockwise")


class Renderer(torch.nn.Module):
    """Draws faces of a morphable model with the camera of FOCUS.

    The model is no part of what a network with a renderer in it saves (``state_dict``, 85 MB for the procedural face)
    or lists, but moves with it (``to``, ``double``) and is copied and pickled with it.

    Args:
        model: the face; shared, not copied.
        image_size: S, pixels.
        antialias: blends the mask at the outline and the image where one part of the face hides another
            (`ops.antialias`), from where the vertices then get gradients. At the outline the image has the colours of
            the face alone, wherever the mask is not 0: ``mask * image`` is the picture before a black background.
        camera: of another focal length, for images of another size too; None: `Camera(image_size)`.
    """

    model: MorphableModel

    def __init__(
        self, model: MorphableModel, image_size: int, *, antialias: bool = False, camera: Camera | None = None
    ) -> None:
        super().__init__()
        self.antialias = antialias
        self.model = model
        self.camera = Camera(image_size) if camera is None else camera.resized(image_size)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":
            object.__setattr__(self, name, value)  # past the lists of torch.nn.Module
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Renderer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if recurse:
            self.model._apply(fn)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Files of before, with the model in them.
        arrays = {key: value for key, value in state_dict.items() if key.startswith(f"{prefix}model.")}
        others = {key: value for key, value in state_dict.items() if key not in arrays}
        super()._load_from_state_dict(others, prefix, *args)
        if arrays:
            self.model._load_from_state_dict(arrays, f"{prefix}model.", *args)

    def forward(
        self, parameters: FaceParameters, *, vertices: Tensor | None = None, albedo: Tensor | None = None
    ) -> Rendering:
        """Renders a batch.

        Args:
            parameters: B faces.
            vertices: ``[B, V, 3]`` mm, model space, in place of the model's shape.
            albedo: ``[B, V, 3]`` RGB, in place of the model's albedo.
        """
        with phase("decoding"):
            if vertices is None:
                vertices = self.model.shape(parameters.identity, parameters.expression)
            if albedo is None:
                albedo = self.model.albedo(parameters.albedo)
        with phase("rendering"):
            return self._draw(parameters, marked(vertices, "decoding, backward"), albedo)

    def _draw(self, parameters: FaceParameters, vertices: Tensor, albedo: Tensor) -> Rendering:
        topology = self.model.topology
        camera_vertices = self.camera.transform(vertices, parameters.rotation, parameters.translation)
        screen_vertices = self.camera.project(camera_vertices)
        normals, colors = shade(camera_vertices, albedo, parameters.lighting, topology)
        size = (self.camera.image_size, self.camera.image_size)
        image, mask, face_index = draw(screen_vertices, colors, topology, size)
        if self.antialias:
            both = ops.antialias(torch.cat([image, mask], 1), screen_vertices, topology, face_index)
            image, mask = both[:, :3], both[:, 3:]
            image = image / torch.where(mask < _LEAST_SHARE, _LEAST_SHARE, mask)  # clamp, but for ties in its gradient
        image = marked(image, "rendering, backward")
        landmarks = screen_vertices[:, self.model.landmarks68, :2]
        return Rendering(image, mask, vertices, screen_vertices, normals, colors, landmarks, face_index)
