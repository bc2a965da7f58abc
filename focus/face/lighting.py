"""Second-order spherical-harmonics lighting: helpers around the coefficients of `ops.sh_shading`.

The nine real harmonics (l = 0..2, m = -l..l, Condon-Shortley signs) of the unit normal n = (x, y, z) in camera axes
(x right, y down, z away from the camera) are

    0.282095, -0.488603 y, 0.488603 z, -0.488603 x, 1.092548 xy, -1.092548 yz, 0.315392 (3 z^2 - 1), -1.092548 xz,
    0.546274 (x^2 - y^2)

and a surface of albedo rho is shaded rho * sum(coefficient * harmonic).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HARMONIC_COUNT = 9
AMBIENT_COEFFICIENT = 0.7 * 2 * math.pi
"""First band of the default light (official code of FOCUS); shades a surface 1.24 times its albedo."""

_Y0 = 0.5 * math.sqrt(1 / math.pi)
_Y1 = math.sqrt(3 / (4 * math.pi))
_Y2 = 0.5 * math.sqrt(15 / math.pi)
_Y20 = 0.25 * math.sqrt(5 / math.pi)
# Factors of the Lambertian cosine lobe per band (Ramamoorthi and Hanrahan 2001, eq. 8), divided by pi so that a light
# of intensity 1 shades a surface that faces it with its own albedo.
_COSINE_LOBE = (1.0, 2 / 3, 2 / 3, 2 / 3, 0.25, 0.25, 0.25, 0.25, 0.25)


def harmonics(normals: Tensor) -> Tensor:
    """The nine harmonics of unit normals.

    Args:
        normals: ``[..., 3]`` unit vectors in camera axes.

    Returns:
        ``[..., 9]``, dtype and device of `normals`.
    """
    x, y, z = normals.unbind(-1)
    return torch.stack(
        (
            torch.full_like(x, _Y0),
            -_Y1 * y,
            _Y1 * z,
            -_Y1 * x,
            _Y2 * x * y,
            -_Y2 * y * z,
            _Y20 * (3 * z * z - 1),
            -_Y2 * x * z,
            0.5 * _Y2 * (x * x - y * y),
        ),
        dim=-1,
    )


def harmonics_gradient(normals: Tensor) -> Tensor:
    """Derivatives of `harmonics` by the normal, as polynomials: ``[..., 3]`` to ``[..., 9, 3]``."""
    x, y, z = normals.unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows = (
        (zero, zero, zero),
        (zero, -_Y1 * one, zero),
        (zero, zero, _Y1 * one),
        (-_Y1 * one, zero, zero),
        (_Y2 * y, _Y2 * x, zero),
        (zero, -_Y2 * z, -_Y2 * y),
        (zero, zero, 6 * _Y20 * z),
        (-_Y2 * z, zero, -_Y2 * x),
        (_Y2 * x, -_Y2 * y, zero),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def ambient_lighting(
    batch_size: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """The same white light from everywhere, ``[B, 3, 9]``: the default of `FaceParameters.mean`."""
    lighting = torch.zeros(batch_size, 3, HARMONIC_COUNT, dtype=dtype, device=device)
    lighting[:, :, 0] = AMBIENT_COEFFICIENT
    return lighting


def directional_lighting(directions: Tensor, colors: Tensor, ambient: Tensor) -> Tensor:
    """Distant light on a matt surface, projected to nine harmonics, plus ambient light.

    Args:
        directions: ``[B, 3]`` towards the light, camera axes, any positive length; (0, 0, -1) is a light at the camera.
        colors: ``[B, 3]`` RGB intensity; 1 shades a surface that faces the light with about its own albedo.
        ambient: ``[B, 3]`` RGB intensity; 1 shades every surface with its own albedo.

    Returns:
        ``[B, 3, 9]`` coefficients for `ops.sh_shading`. Nine harmonics carry 99% of the energy of a cosine lobe
        (Ramamoorthi and Hanrahan 2001); the side away from the light may come out up to 6% below zero.
    """
    for name, value in (("directions", directions), ("colors", colors), ("ambient", ambient)):
        if value.dim() != 2 or value.shape[1] != 3:
            raise ValueError(f"directional_lighting: {name}: expected shape [B, 3], got {list(value.shape)}")
    lobe = torch.tensor(_COSINE_LOBE, dtype=directions.dtype, device=directions.device)
    band = math.pi * lobe * harmonics(torch.nn.functional.normalize(directions, dim=-1))  # [B, 9]
    lighting = colors[:, :, None] * band[:, None, :]
    constant = torch.nn.functional.pad(ambient[:, :, None] / _Y0, (0, HARMONIC_COUNT - 1))
    return lighting + constant


def turned_lighting(lighting: Tensor, rotation: Tensor) -> Tensor:
    """Light turned about the camera: a normal R n is lit as n was before.

    Args:
        lighting: ``[B, 3, 9]``.
        rotation: ``[3, 3]``, R; camera axes before to camera axes afterwards.

    Returns:
        ``[B, 3, 9]``. The harmonics of a degree turn among themselves, so that this is exact.
    """
    normals = F.normalize(lighting.new_tensor(_DIRECTIONS), dim=-1)
    before, after = harmonics(normals), harmonics(normals @ rotation.T.to(lighting))
    matrix: Tensor = torch.linalg.lstsq(after, before).solution
    return lighting @ matrix.T


_DIRECTIONS = [
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (-1, 1, 0), (0, -1, 1), (1, 0, -1), (1, 2, 3),
    (-3, 1, 2), (2, -3, 1),
]  # fmt: skip
"""More than nine directions that tell all harmonics apart."""
