"""Lighting by linear least squares: a render is linear in its spherical-harmonics coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from focus import ops
from focus.face import Rendering
from focus.face.lighting import AMBIENT_COEFFICIENT, HARMONIC_COUNT, harmonics
from focus.face.renderer import draw

_ROUNDS = 6
_SCALE = 0.04
"""Colour difference at which a pixel's weight is halved, per colour."""
# Precision a priori of the coefficients, relative to the noise of a pixel (variance about 0.01, and neighbours are not
# independent: a face counts as some 300 pixels). Brightness is nearly free; soft light is more likely than hard light,
# and white light more likely than coloured light, which leaves the tone of the skin to the albedo.
_BRIGHTNESS = 3e-5
_FIRST_BAND, _SECOND_BAND = 1e-4, 5e-4
_TINT = 1e-3


def solve_lighting(
    target: Tensor, rendering: Rendering, albedo: Tensor, topology: ops.Topology, weight: Tensor
) -> Tensor:
    """The light under which a face of given shape and albedo comes closest to a photo.

    Least squares, reweighted iteratively with the weights of a Cauchy likelihood, and a prior for soft and white light.

    Args:
        target: ``[1, 3, S, S]``.
        rendering: of the face; its normals, screen vertices and face index are used, its colours are not.
        albedo: ``[1, V, 3]``.
        topology: of the face.
        weight: ``[1, 1, S, S]``, the trust in each pixel.

    Returns:
        ``[1, 3, 9]``.
    """
    with torch.no_grad():
        attributes = (albedo[..., None] * harmonics(rendering.normals)[:, :, None, :]).flatten(2)  # [1, V, 27]
        height, width = target.shape[2:]
        pixels = draw(rendering.screen_vertices, attributes, topology, (height, width))[0][0]
        covered = (rendering.face_index[0] >= 0) & (weight[0, 0] > 0)
        design = pixels[:, covered].T.double().reshape(-1, 3, HARMONIC_COUNT)  # [P, 3, 9]
        colors = target[0][:, covered].T.double()  # [P, 3]
        trust = weight[0, 0][covered].double()
        precision, expected = _prior(design)
        lighting, robust = expected, torch.ones_like(trust)
        for _ in range(_ROUNDS):
            w = robust * trust / trust.sum().clamp(min=1e-9)
            curvature, right = precision.clone(), precision @ expected.flatten()
            for color in range(3):
                part = slice(color * HARMONIC_COUNT, (color + 1) * HARMONIC_COUNT)
                weighted = w[:, None] * design[:, color]
                curvature[part, part] += weighted.T @ design[:, color]
                right[part] += weighted.T @ colors[:, color]
            lighting = torch.linalg.solve(curvature, right).reshape(3, HARMONIC_COUNT)
            squared = (torch.einsum("pcb,cb->pc", design, lighting) - colors).square().mean(dim=1)
            robust = 1 / (1 + squared / _SCALE**2)
        return lighting[None].to(target)


def _prior(like: Tensor) -> tuple[Tensor, Tensor]:
    """Precision ``[27, 27]`` and mean ``[3, 9]`` of the coefficients."""
    band = like.new_tensor([_BRIGHTNESS, *(_FIRST_BAND,) * 3, *(_SECOND_BAND,) * 5])
    identity = torch.eye(3, dtype=like.dtype, device=like.device)
    tint = _TINT * (identity - 1 / 3)  # what differs from the mean of the colours
    each = torch.eye(HARMONIC_COUNT, dtype=like.dtype, device=like.device)
    mean = like.new_zeros(3, HARMONIC_COUNT)
    mean[:, 0] = AMBIENT_COEFFICIENT
    return torch.kron(identity, torch.diag(band)) + torch.kron(tint, each), mean
