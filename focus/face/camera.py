"""The pinhole camera of FOCUS: pose, projection, and the conventions of angles.

Model space is x to the image's right of a face that looks at the camera, y up, z out of the face. Camera space is x
right, y down, z away from the camera. Both in millimetres. Pixel centres lie at integer coordinates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

FOCAL_FACTOR = 9.06
"""Focal length over half the image size: 1014.72 pixels at 224 (official code of FOCUS)."""

DEFAULT_DISTANCE = 1000.0
"""Depth in millimetres of the model's origin at translation zero."""


def rotation_matrix(angles: Tensor) -> Tensor:
    """R = diag(1, -1, -1) Rx(a) Ry(b) Rz(c): from model axes to camera axes.

    Args:
        angles: ``[B, 3]``, (a, b, c) in radians: pitch (a > 0 turns the face down), yaw (b > 0 turns it towards the
            image's right) and roll.

    Returns:
        ``[B, 3, 3]``, rotations (determinant 1); zero angles give diag(1, -1, -1), a face that looks at the camera.
    """
    if angles.dim() != 2 or angles.shape[1] != 3:
        raise ValueError(f"rotation_matrix: angles: expected shape [B, 3], got {list(angles.shape)}")
    (ca, cb, cc), (sa, sb, sc) = torch.cos(angles).unbind(1), torch.sin(angles).unbind(1)
    rows = (
        (cb * cc, -cb * sc, sb),
        (-(ca * sc + sa * sb * cc), -(ca * cc - sa * sb * sc), sa * cb),
        (-(sa * sc - ca * sb * cc), -(sa * cc + ca * sb * sc), -ca * cb),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def angles_of(rotation: Tensor) -> Tensor:
    """The angles of `rotation_matrix`, which undoes this.

    Args:
        rotation: ``[B, 3, 3]``, from model axes to camera axes.

    Returns:
        ``[B, 3]``, radians; the yaw lies in [-pi/2, pi/2].
    """
    return torch.stack(
        [
            torch.atan2(rotation[:, 1, 2], -rotation[:, 2, 2]),
            torch.asin(rotation[:, 0, 2].clamp(-1, 1)),
            torch.atan2(-rotation[:, 0, 1], rotation[:, 0, 0]),
        ],
        dim=-1,
    )


def rigid_transform(vertices: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """X_cam = R X + t.

    Args:
        vertices: ``[B, V, 3]`` or ``[1, V, 3]`` in model space, mm.
        rotation: ``[B, 3, 3]``.
        translation: ``[B, 3]``, mm, complete (the default distance included).

    Returns:
        ``[B, V, 3]`` in camera space, mm.
    """
    return vertices @ rotation.transpose(-1, -2) + translation[:, None, :]


class Camera:
    """A pinhole camera for square images.

    Attributes:
        image_size: S, height and width in pixels.
        focal: pixels.
        principal: (S - 1) / 2 in x and in y, pixels: the centre of the image.
        offset: (x, y), pixels from there to where the axis of the lens meets the image.

    Args:
        image_size: S.
        focal: None: 9.06 * S / 2, the camera of FOCUS, with which networks see.
        offset: not (0, 0) where the image was cut out of a photo beside its middle.
    """

    def __init__(
        self,
        image_size: int | np.integer[Any],
        focal: float | None = None,
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        if isinstance(image_size, bool) or not isinstance(image_size, (int, np.integer)) or image_size < 1:
            raise ValueError(f"Camera: image_size: expected a positive whole number of pixels, got {image_size!r}")
        self.image_size = int(image_size)
        self.focal = FOCAL_FACTOR * self.image_size / 2 if focal is None else float(focal)
        if not 0 < self.focal < float("inf"):
            raise ValueError(f"Camera: focal: expected a positive number of pixels, got {focal!r}")
        self.principal = (self.image_size - 1) / 2
        self.offset = (float(offset[0]), float(offset[1]))

    def __repr__(self) -> str:
        return f"Camera(image_size={self.image_size}, focal={self.focal:g}, offset={self.offset})"

    def resized(self, image_size: int) -> Camera:
        """The same camera for the image at another size."""
        factor = image_size / self.image_size
        return Camera(image_size, self.focal * factor, (self.offset[0] * factor, self.offset[1] * factor))

    rotation_matrix = staticmethod(rotation_matrix)

    @staticmethod
    def transform(vertices: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
        """Model space to camera space.

        Args:
            vertices: ``[B, V, 3]``, mm, model space.
            rotation: ``[B, 3]`` angles in radians, or ``[B, 3, 3]`` matrices.
            translation: ``[B, 3]``, mm, camera axes, added to (0, 0, 1000).

        Returns:
            ``[B, V, 3]``, mm, camera space; z is the depth.
        """
        matrices = rotation_matrix(rotation) if rotation.dim() == 2 else rotation
        # Without a constant tensor, which would be copied to a card in every call, and cannot be captured in a graph.
        offset = torch.cat((translation[..., :2], translation[..., 2:] + DEFAULT_DISTANCE), dim=-1)
        return rigid_transform(vertices, matrices, offset)

    def project(self, camera_vertices: Tensor) -> Tensor:
        """Camera space to the screen.

        Args:
            camera_vertices: ``[B, V, 3]``, mm.

        Returns:
            ``[B, V, 3]``: x and y in pixels, z the depth in mm. Where the depth is not positive, x and y mean nothing;
            the rasterizer skips such faces.
        """
        depth = camera_vertices[..., 2:]
        pixels = camera_vertices[..., :2] * (self.focal / depth) + self.principal
        if self.offset != (0.0, 0.0):
            pixels = pixels + pixels.new_tensor(self.offset)
        return torch.cat((pixels, depth), dim=-1)
