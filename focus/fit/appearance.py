"""Light and albedo of a face whose shape and pose are given, by pixel: alternating linear least squares.

A colour is albedo times irradiance, and each of the two is linear in its coefficients. With shape and pose held, the
face is a few images, and a fit of light and albedo to a part of the photo takes a millisecond: cheap enough to try many
parts, as Egger et al. (IJCV 2018) do with random samples, and all of them in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from focus.face import MorphableModel, Rendering
from focus.face.lighting import HARMONIC_COUNT, harmonics
from focus.face.renderer import draw
from focus.fit.lighting import lighting_step

_ROUNDS = 2
_SCALE = 0.04
"""Colour difference at which a pixel's weight is halved."""
ALBEDO_COUNT = 10
"""Components of the albedo that are fitted: those beyond are so local that they would paint occluders."""
_ALBEDO_PRECISION = 3e-5
"""A priori, relative to the noise of a pixel; a face counts as some hundred independent pixels."""


@dataclass
class PixelFace:
    """A posed face by pixel: P pixels of an image of side S.

    Attributes:
        size: S.
        pixels: ``[P]`` int64, row by row.
        photo: ``[3, P]``.
        target: ``[3, S, S]``, the photo with what is round the face.
        harmonics: ``[9, P]``.
        mean_albedo: ``[3, P]``.
        albedo_basis: ``[K, 3, P]``.
        fields: ``[N, P]``, of `vertex_fields`.
        pieces: ``[S, S]`` int64, of `find_pieces`, also off the face.
    """

    size: int
    pixels: Tensor
    photo: Tensor
    target: Tensor
    harmonics: Tensor
    mean_albedo: Tensor
    albedo_basis: Tensor
    fields: Tensor
    pieces: Tensor

    @classmethod
    def draw(
        cls, target: Tensor, rendering: Rendering, model: MorphableModel, fields: Tensor, pieces: Tensor
    ) -> PixelFace:
        """Draws what a model has at its vertices.

        Args:
            target: ``[1, 3, S, S]``, the photo.
            rendering: of one face; its colours are not used.
            model: of the rendering.
            fields: ``[V, N]``.
            pieces: ``[S, S]`` int64.
        """
        count = min(ALBEDO_COUNT, model.albedo_count)
        basis = model.albedo_basis[:count].permute(1, 0, 2).flatten(1)  # [V, 3 K]
        values = torch.cat([model.mean_albedo, harmonics(rendering.normals[0]), fields, basis], dim=1)
        size = target.shape[-1]
        images = draw(rendering.screen_vertices, values[None], model.topology, (size, size))[0][0]
        pixels = (rendering.face_index[0].flatten() >= 0).nonzero()[:, 0]
        parts = [3, HARMONIC_COUNT, fields.shape[1], 3 * count]
        mean, bands, drawn, components = torch.split(images.flatten(1)[:, pixels], parts)
        photo = target[0].flatten(1)[:, pixels]
        return cls(size, pixels, photo, target[0], bands, mean, components.view(count, 3, -1), drawn, pieces)

    def image(self, values: Tensor) -> Tensor:
        """``[..., P]`` to ``[..., S, S]``, 0 off the face."""
        image = values.new_zeros(*values.shape[:-1], self.size * self.size)
        image[..., self.pixels] = values
        return image.view(*values.shape[:-1], self.size, self.size)

    def of(self, image: Tensor) -> Tensor:
        """``[..., S, S]`` to ``[..., P]``."""
        return image.flatten(-2)[..., self.pixels]


@dataclass
class Appearance:
    """B fits to one photo.

    Attributes:
        lighting: ``[B, 3, 9]``.
        albedo: ``[B, K]``.
        colors: ``[B, 3, P]``, the reconstruction.
    """

    lighting: Tensor
    albedo: Tensor
    colors: Tensor


def fit_appearance(face: PixelFace, trust: Tensor) -> Appearance:
    """Maximum a posteriori light and albedo, with the weights of a Cauchy likelihood.

    Args:
        face: K components of albedo.
        trust: ``[B, P]``, at least 0: how much each pixel counts, in each of B fits.
    """
    count = len(face.albedo_basis)
    ridge = _ALBEDO_PRECISION * torch.eye(count, dtype=face.photo.dtype, device=face.photo.device)
    share = trust / trust.sum(dim=1, keepdim=True).clamp(min=1e-6)
    weight, albedo = share, face.photo.new_zeros(len(trust), count)
    for _ in range(_ROUNDS):
        skin = face.mean_albedo + torch.einsum("bk,kcp->bcp", albedo, face.albedo_basis)
        lighting = lighting_step(skin[:, :, None] * face.harmonics, face.photo, weight)
        shading = lighting @ face.harmonics  # [B, 3, P]
        painted = (face.albedo_basis * shading[:, None]).flatten(2)  # [B, K, 3 P]
        rest = (face.photo - face.mean_albedo * shading).flatten(1)
        weighed = painted * weight.repeat(1, 3)[:, None]
        albedo = torch.linalg.solve(weighed @ painted.transpose(1, 2) + ridge, (weighed @ rest[..., None])[..., 0])
        colors = (face.mean_albedo + torch.einsum("bk,kcp->bcp", albedo, face.albedo_basis)) * shading
        weight = share / (1 + (colors - face.photo).square().mean(dim=1) / _SCALE**2)
    return Appearance(lighting, albedo, colors)
