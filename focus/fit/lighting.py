"""Lighting by linear least squares: a render is linear in its spherical-harmonics coefficients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.face import Rendering
from focus.face.lighting import AMBIENT_COEFFICIENT, HARMONIC_COUNT, harmonics
from focus.fit.gauss_newton import sample_pixels

_ROUNDS = 6
_SAMPLE = 3000
"""Pixels that are looked at."""
_SCALE = 0.04
"""Colour difference at which a pixel's weight is halved, per colour."""
# Precision a priori of the coefficients, relative to the noise of a pixel (variance about 0.01, and neighbours are not
# independent: a face counts as some 300 pixels). Brightness is nearly free; soft light is more likely than hard light,
# and white light more likely than coloured light, which leaves the tone of the skin to the albedo.
_BRIGHTNESS = 3e-5
_FIRST_BAND, _SECOND_BAND = 1e-4, 5e-4
_TINT = 1e-3


def solve_lighting(target: Tensor, rendering: Rendering, albedo: Tensor, faces: Tensor, weight: Tensor) -> Tensor:
    """The light under which faces of given shape and albedo come closest to a photo.

    Least squares on a sample of the pixels, reweighted iteratively with the weights of a Cauchy likelihood, and a prior
    for soft and white light.

    Args:
        target: ``[1, 3, S, S]``.
        rendering: of the faces; its normals, screen vertices and face index are used, its colours are not.
        albedo: ``[B, V, 3]``.
        faces: ``[F, 3]``, of the mesh.
        weight: ``[B, 1, S, S]``, the trust in each pixel.

    Returns:
        ``[B, 3, 9]``.
    """
    with torch.no_grad():
        faces = faces.long()
        solved = []
        for b, trusted in enumerate(weight[:, 0]):
            sample = sample_pixels(trusted, rendering.face_index[b], rendering.screen_vertices[b], faces, _SAMPLE)
            share = sample.barycentric[..., None]
            normals = (share * rendering.normals[b][sample.corners]).sum(dim=1)
            color = (share * albedo[b][sample.corners]).sum(dim=1)
            design = color[..., None] * harmonics(F.normalize(normals, dim=1))[:, None]  # [N, 3, 9]
            seen = target[0].flatten(1)[:, sample.pixels].T
            solved.append(_solve(design.double(), seen.double(), trusted.flatten()[sample.pixels].double()))
        return torch.stack(solved).to(target)


def _solve(design: Tensor, colors: Tensor, trust: Tensor) -> Tensor:
    """``[3, 9]`` from ``[N, 3, 9]``, colours ``[N, 3]`` and the trust in them ``[N]``."""
    images, seen = design.permute(1, 2, 0)[None], colors.T
    share = trust[None] / trust.sum().clamp(min=1e-9)
    lighting, robust = lighting_prior(design)[1][None], torch.ones_like(share)
    for _ in range(_ROUNDS):
        lighting = lighting_step(images, seen, robust * share)
        squared = (torch.einsum("zcbn,zcb->zcn", images, lighting) - seen).square().mean(dim=1)
        robust = 1 / (1 + squared / _SCALE**2)
    return lighting[0]


def lighting_step(design: Tensor, colors: Tensor, weight: Tensor) -> Tensor:
    """The light of weighed least squares and of the prior.

    Args:
        design: ``[B, 3, 9, N]``, colours under each harmonic alone.
        colors: ``[3, N]``, those seen.
        weight: ``[B, N]``, with a sum of about 1.

    Returns:
        ``[B, 3, 9]``.
    """
    precision, expected = lighting_prior(colors)
    curvature = precision.repeat(len(weight), 1, 1)
    right = (precision @ expected.flatten()).repeat(len(weight), 1)
    for color in range(3):
        part = slice(color * HARMONIC_COUNT, (color + 1) * HARMONIC_COUNT)
        weighed = design[:, color] * weight[:, None]
        curvature[:, part, part] += weighed @ design[:, color].transpose(1, 2)
        right[:, part] += weighed @ colors[color]
    lighting: Tensor = torch.linalg.solve(curvature, right)
    return lighting.view(-1, 3, HARMONIC_COUNT)


def lighting_prior(like: Tensor) -> tuple[Tensor, Tensor]:
    """Precision ``[27, 27]`` and mean ``[3, 9]`` of the coefficients."""
    band = like.new_tensor([_BRIGHTNESS, *(_FIRST_BAND,) * 3, *(_SECOND_BAND,) * 5])
    identity = torch.eye(3, dtype=like.dtype, device=like.device)
    tint = _TINT * (identity - 1 / 3)  # what differs from the mean of the colours
    each = torch.eye(HARMONIC_COUNT, dtype=like.dtype, device=like.device)
    mean = like.new_zeros(3, HARMONIC_COUNT)
    mean[:, 0] = AMBIENT_COEFFICIENT
    return torch.kron(identity, torch.diag(band)) + torch.kron(tint, each), mean
