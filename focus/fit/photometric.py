"""Second-order descent on colours, landmarks and priors together, alternating with lighting and mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.face import Camera, FaceParameters, MorphableModel, Renderer, Rendering
from focus.face.contour import LandmarkLocator
from focus.fit.appearance import PixelFace
from focus.fit.gauss_newton import (
    POSE_COUNT,
    PlacedFace,
    SurfaceBasis,
    bounded_steps,
    color_jacobian,
    sample_pixels,
)
from focus.fit.landmarks import OUTLIER_DEVIATION, LandmarkObservation
from focus.fit.lighting import lighting_prior, solve_lighting
from focus.fit.outliers import Neighborhood, visible_probability, without_specks
from focus.fit.pieces import pieces_of_crop
from focus.fit.settings import FitSettings
from focus.fit.witnesses import vertex_fields

_SAMPLE = 2500
"""Pixels in a Gauss-Newton matrix."""
_LEAST_DIFFERENCE = 0.02
"""Colour differences below are squared, those above count by their length."""
DAMPING, MORE, LESS = 0.03, 5.0, 1 / 3
"""Of the diagonal of the matrix: at the start, its factor after a step that led uphill, and after another one."""

_UPPER, _LOWER = (61, 62, 63, 37, 38, 43, 44), (67, 66, 65, 41, 40, 47, 46)
"""Landmarks that face each other across the mouth and the eyes."""
_OVERLAP, _OVERLAP_SIGMA = 1.0, 1.0
"""Overlap of lips and lids that means nothing, mm, and standard deviation of what is more."""

_AROUND_LANDMARK = 4 / 224
"""Reach around a landmark in which the mask says whether it is seen, in sides of the crop."""
_TRUST_IN_HIDDEN = 0.5
"""Of landmarks that the mask hides, which a detector guesses: their standard deviation is twice as large."""

_BEYOND = 2
"""Pixels beyond the outline that `FitSettings.antialias` looks at: about as far it moves between two masks."""


@dataclass
class FittedFace:
    """A fit and what it looks like.

    Attributes:
        parameters: B = 1.
        image: ``[1, 3, S, S]``, the reconstruction, 0 outside.
        face: ``[1, 1, S, S]``, 1 where it is drawn.
        visible: ``[1, 1, S, S]``, the probability that the face is seen.
    """

    parameters: FaceParameters
    image: Tensor
    face: Tensor
    visible: Tensor


class PhotometricFit:
    """Analysis by synthesis of one photo.

    Args:
        model: the face, without what a photo cannot show (see `focus.fit.region`).
        locator: of its landmarks.
        target: ``[1, 3, S, S]``, the crop.
        observation: landmarks in pixels of this crop.
        expression_sigma: standard deviation a priori of the expression coefficients.
        settings: weights.
        notify: called after each step.
        basis: of the model, where it is at hand.
        camera: of the photo, at any size; None: that of FOCUS.
        pieces: ``[S, S]`` int64, of the crop, where they are at hand.
        heard: ``[1, 1, S, S]``, log-odds of the mask by another witness, such as a network.
    """

    def __init__(
        self,
        model: MorphableModel,
        locator: LandmarkLocator,
        target: Tensor,
        observation: LandmarkObservation,
        expression_sigma: float,
        settings: FitSettings,
        notify: Callable[[], None] = lambda: None,
        basis: SurfaceBasis | None = None,
        camera: Camera | None = None,
        pieces: Tensor | None = None,
        heard: Tensor | None = None,
    ) -> None:
        self._heard = heard
        self.model, self.locator, self.target, self.observation = model, locator, target, observation
        self.expression_sigma, self.settings, self.notify = expression_sigma, settings, notify
        self.renderer = Renderer(model, target.shape[-1], camera=camera)
        self._blending_renderer = Renderer(model, target.shape[-1], antialias=settings.antialias, camera=camera)
        self._gap = lip_and_lid_gaps(model, model.mean_shape[None])
        self._fields = vertex_fields(model)
        self._pieces = pieces_of_crop(target) if pieces is None else pieces
        self.basis = SurfaceBasis(model) if basis is None else basis
        self._faces = model.faces.long()
        self._gradient = _gradient(target[0])  # [3, 2, S, S]
        counts = model.identity_count, model.expression_count, model.albedo_count
        parts = [(6, 0.0), (counts[0], 1.0), (counts[1], expression_sigma**-2), (counts[2], 1.0), (27, 0.0)]
        device = target.device
        self._precision = torch.cat([torch.full((n,), value, dtype=torch.float64, device=device) for n, value in parts])
        self.lower = torch.full_like(self._precision, -torch.inf)
        self.upper = torch.full_like(self._precision, torch.inf)
        if model.expression_prior == "unit_interval":
            part = slice(6 + counts[0], 6 + counts[0] + counts[1])
            self.lower[part], self.upper[part] = 0, 1

    def estimate(self, parameters: FaceParameters, visible: Tensor) -> FittedFace:
        """Lighting and mask for given shape, pose and albedo: the closed-form half of the alternation.

        Args:
            parameters: B fits of the photo; the lighting in them is not used.
            visible: ``[B, 1, S, S]``, the last masks.
        """
        with torch.no_grad():
            rendering = self.renderer(parameters)
            albedo = self.model.albedo(parameters.albedo)
            lighting = solve_lighting(self.target, rendering, albedo, self.model.faces, rendering.mask * visible)
            parameters = replace(parameters, lighting=lighting)
            rendering = self.renderer(parameters)
            found = []
            for b in range(len(parameters)):
                one = rendering.single(b)
                face = PixelFace.draw(self.target, one, self.model, self._fields, self._pieces)
                neighborhood = Neighborhood(self.target, one.mask)
                colors, last = face.of(one.image), face.of(visible[b])
                heard = None if self._heard is None else face.of(self._heard[0, 0])
                found.append(face.image(visible_probability(face, colors, last, neighborhood, heard=heard)))
            return FittedFace(parameters, rendering.image, rendering.mask, torch.stack(found))

    def descend(self, start: FaceParameters, steps: int, visible: Tensor) -> FittedFace:
        """Levenberg-Marquardt on all parameters, with new lighting and a new mask every few steps.

        Args:
            start: B fits of the photo, each with a mask of its own.
            steps: number of steps, those included that are taken back since they led uphill.
            visible: ``[B, 1, S, S]``, masks to start from.
        """
        with torch.no_grad():
            parameters = start
            damping = torch.full((len(start),), DAMPING, dtype=torch.float64, device=self.target.device)
            for step in range(steps):
                if step % self.settings.mask_every == 0:
                    estimate = self.estimate(parameters, visible)
                    parameters, visible = estimate.parameters, estimate.visible
                    trusted = self.continued(estimate)
                    current, system = self.energies(parameters, trusted), None
                if system is None:
                    system = self.systems(parameters, current[1], trusted)
                moved = self._moved(parameters, *system, damping)
                trial = self.energies(moved, trusted)
                better = trial[0] <= current[0]
                damping = torch.where(better, damping * LESS, damping * MORE)
                if bool(better.all()):
                    parameters, current, system = moved, trial, None
                elif bool(better.any()):
                    parameters = _chosen(better, moved, parameters)
                    current, system = self.energies(parameters, trusted), None
                self.notify()
        return self.finish(parameters, visible)

    def finish(self, parameters: FaceParameters, visible: Tensor) -> FittedFace:
        """The last light and mask, the latter without specks; arguments as of `estimate`."""
        face = self.estimate(parameters, visible)
        cleaned = [without_specks(v[None], f[None]) for v, f in zip(face.visible, face.face, strict=True)]
        return replace(face, visible=torch.cat(cleaned))

    def continued(self, face: FittedFace) -> Tensor:
        """The mask, beyond the outline like the pixels inside it where the outline is to be moved by colours."""
        if not self.settings.antialias:
            return face.visible
        around = F.max_pool2d(face.visible, 2 * _BEYOND + 1, stride=1, padding=_BEYOND)
        return torch.where(face.face > 0, face.visible, around)

    def energy(self, parameters: FaceParameters, visible: Tensor) -> Tensor:
        """Minus the logarithm of the posterior, up to a constant: ``[B]``."""
        return self.energies(parameters, visible)[0]

    def energies(self, parameters: FaceParameters, visible: Tensor) -> tuple[Tensor, Rendering]:
        """As `energy`, with the rendering that it is of."""
        rendering = self._blending_renderer(parameters)
        weight = rendering.mask * visible
        length = (self.target - rendering.image).square().sum(dim=1, keepdim=True)
        # The length of a difference, rounded off near 0.
        length = torch.where(
            length > _LEAST_DIFFERENCE**2,
            length.clamp(min=_LEAST_DIFFERENCE**2).sqrt(),
            length / (2 * _LEAST_DIFFERENCE) + _LEAST_DIFFERENCE / 2,
        )
        pixel = (weight * length).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1)
        landmarks = self.locator(
            rendering.vertices, parameters.rotation, rendering.screen_vertices[..., :2], parameters.translation
        )
        deviation = torch.stack([self.observation.residual(points).norm(dim=1) for points in landmarks])
        deviation = deviation * self._landmark_trust(rendering, visible)
        landmark = F.huber_loss(deviation, torch.zeros_like(deviation), reduction="none", delta=OUTLIER_DEVIATION)
        overlap = self._overlap(rendering.vertices).square().sum(dim=1)
        expression = parameters.expression / self.expression_sigma
        prior = sum(value.square().sum(dim=1) for value in (parameters.identity, expression, parameters.albedo))
        energy = self.settings.pixel_weight * pixel + landmark.sum(dim=1) + 0.5 * (prior + overlap)
        return energy, rendering

    def _landmark_trust(self, rendering: Rendering, visible: Tensor) -> Tensor:
        """How far each observed point is believed, by the part of the face around it that is seen: ``[B, N]``."""
        size = self.target.shape[-1]
        reach = max(1, round(_AROUND_LANDMARK * size))
        drawn = rendering.mask.detach()
        around, seen = (
            F.avg_pool2d(image, 2 * reach + 1, stride=1, padding=reach)[:, 0] for image in (drawn, drawn * visible)
        )
        x, y = self.observation.points.round().long().clamp(0, size - 1).to(seen.device).unbind(1)
        part = torch.where(around > 0, seen / around.clamp(min=1e-6), 1.0)[:, y, x]
        return _TRUST_IN_HIDDEN + (1 - _TRUST_IN_HIDDEN) * part

    def _overlap(self, vertices: Tensor) -> Tensor:
        """By how much lips and lids have passed each other, in standard deviations, ``[B, 7]``.

        Blend shapes that close an open mouth push the lower lip through the upper one where it is not open. With five
        landmarks nothing but the colours would be against it, and they may like it.
        """
        return F.relu(self._gap.clamp(max=0) - lip_and_lid_gaps(self.model, vertices) - _OVERLAP) / _OVERLAP_SIGMA

    def systems(self, parameters: FaceParameters, rendering: Rendering, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss-Newton matrices ``[B, K, K]`` and gradients ``[B, K]`` of the energies, float64."""
        albedo = self.model.albedo(parameters.albedo)
        ends, fractions = self.locator.locate(rendering.vertices, parameters.rotation, parameters.translation)
        overlap = self._overlap(rendering.vertices)
        believed = self._landmark_trust(rendering, visible)
        systems = []
        for b in range(len(parameters)):
            face = PlacedFace.of(
                rendering.vertices[b], parameters.rotation[b], parameters.translation[b], self.renderer.camera
            )
            matrix, slope = self._color_system(face, rendering, visible, parameters, albedo, b)
            count = POSE_COUNT + self.basis.shape.shape[2]
            rows, values = self._landmark_rows(face, ends[b], fractions[b], believed[b])
            gaps = (
                self.basis.shape[self.model.landmarks68[list(_LOWER)], 1]
                - self.basis.shape[self.model.landmarks68[list(_UPPER)], 1]
            )
            rows = torch.cat([rows, F.pad(gaps * (overlap[b] > 0)[:, None] / _OVERLAP_SIGMA, (POSE_COUNT, 0)).double()])
            values = torch.cat([values, overlap[b].double()])
            matrix[:count, :count] += rows.T @ rows
            slope[:count] += rows.T @ values
            systems.append((matrix, slope))
        matrices, slopes = (torch.stack(part) for part in zip(*systems, strict=True))
        if self.settings.antialias:
            return matrices + torch.diag(self._precision), self._exact_slopes(parameters, visible)
        return matrices + torch.diag(self._precision), slopes + self._precision * packed(parameters)

    def _exact_slopes(self, parameters: FaceParameters, visible: Tensor) -> Tensor:
        """Gradients of the energies, ``[B, K]`` float64: also of the outline, which no point on the surface has."""
        variables = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        with torch.enable_grad():
            energy = self.energy(FaceParameters(**variables), visible).sum()
            gradients = torch.autograd.grad(energy, list(variables.values()))
        return packed(FaceParameters(*gradients))

    def _color_system(
        self,
        face: PlacedFace,
        rendering: Rendering,
        visible: Tensor,
        parameters: FaceParameters,
        albedo: Tensor,
        b: int,
    ) -> tuple[Tensor, Tensor]:
        weight = visible[b, 0] * (rendering.face_index[b] >= 0)
        sample = sample_pixels(weight, rendering.face_index[b], rendering.screen_vertices[b], self._faces, _SAMPLE)
        difference = (self.target[0] - rendering.image[b]).flatten(1)[:, sample.pixels].T  # [N, 3]
        trust = weight.flatten()[sample.pixels]
        trust = self.settings.pixel_weight * trust / trust.sum().clamp(min=1e-9)
        trust = trust / difference.norm(dim=1).clamp(min=_LEAST_DIFFERENCE)
        # The mean of the gradients of photo and rendering is right to second order (ESM; Malis 2004): one step in place
        # of two or three. Where a neighbour is not drawn, the rendering has none.
        inside = F.avg_pool2d(rendering.mask[b], 3, stride=1, padding=1) > 1 - 1e-3
        mean = torch.where(inside, (self._gradient + _gradient(rendering.image[b])) / 2, self._gradient)
        gradient = mean.flatten(2)[:, :, sample.pixels].permute(2, 0, 1)  # [N, 3, 2]
        jacobian = color_jacobian(
            face, sample, gradient, rendering.normals[b], albedo[b], parameters.lighting[b], self.basis
        )
        jacobian = (trust.sqrt()[:, None, None] * jacobian).flatten(0, 1)
        weighed = (trust.sqrt()[:, None] * difference).flatten()
        matrix, slope = (jacobian.T @ jacobian).double(), (jacobian.T @ weighed).double()
        precision, mean = lighting_prior(slope)
        part = slice(len(slope) - mean.numel(), len(slope))
        precision = precision * trust.sum().double()
        matrix[part, part] += precision
        slope[part] += precision @ (parameters.lighting[b].double() - mean).flatten()
        return matrix, slope

    def _landmark_rows(
        self, face: PlacedFace, ends: Tensor, fractions: Tensor, believed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Derivatives ``[2 N, 6 + K]`` and residuals ``[2 N]`` of the landmarks, times the roots of their weights."""
        share = torch.stack([1 - fractions, fractions], dim=1)  # [68, 2]
        points = (share[..., None] * face.placed[ends]).sum(dim=1)
        residual = believed[:, None] * self.observation.residual(self.renderer.camera.project(points[None])[0, :, :2])
        slopes = face.screen_derivative(points)[:, :, None, :] * share[:, None, :, None]
        jacobian = face.pull_back(slopes, ends, self.basis)  # [68, 2, K]
        jacobian = torch.einsum("np,pik->nik", self.observation.selection.to(jacobian), jacobian)
        jacobian = believed[:, None, None] * (self.observation.whitening.to(jacobian) @ jacobian)
        root = (OUTLIER_DEVIATION / residual.norm(dim=1).clamp(min=OUTLIER_DEVIATION)).sqrt()[:, None]
        return (root[..., None] * jacobian).flatten(0, 1).double(), (root * residual).flatten().double()

    def _moved(self, parameters: FaceParameters, matrices: Tensor, slopes: Tensor, damping: Tensor) -> FaceParameters:
        """The parameters after a damped step inside the bounds."""
        unknowns = packed(parameters)
        diagonal = matrices.diagonal(dim1=1, dim2=2)
        damped = matrices + torch.diag_embed(damping[:, None] * diagonal + 1e-9)
        step = bounded_steps(damped, slopes, self.lower - unknowns, self.upper - unknowns)
        return unpacked(unknowns + step, parameters)


def _gradient(image: Tensor) -> Tensor:
    """By x and y, by central differences: ``[C, H, W]`` to ``[C, 2, H, W]``."""
    return torch.stack(torch.gradient(image, dim=(2, 1)), dim=1)


def _chosen(first: Tensor, one: FaceParameters, other: FaceParameters) -> FaceParameters:
    """The faces of one batch where `first`, ``[B]``, says so, and else of the other."""
    values = dict(other.items())
    return FaceParameters(
        **{name: torch.where(first.view(-1, *(1,) * (v.dim() - 1)), v, values[name]) for name, v in one.items()}
    )


def packed(parameters: FaceParameters) -> Tensor:
    """All unknowns, ``[B, K]`` float64: pose, identity, expression, albedo, lighting."""
    p = parameters
    parts = (p.rotation, p.translation, p.identity, p.expression, p.albedo, p.lighting.flatten(1))
    return torch.cat(parts, dim=1).double()


def unpacked(unknowns: Tensor, like: FaceParameters) -> FaceParameters:
    """The inverse of `packed`, in the types of `like`."""
    counts = (value.shape[1] for value in (like.identity, like.expression, like.albedo))
    rotation, translation, identity, expression, albedo, lighting = (
        part.to(like.identity) for part in torch.split(unknowns, [3, 3, *counts, 27], dim=1)
    )
    return FaceParameters(identity, expression, albedo, rotation, translation, lighting.view(-1, 3, 9))


def lip_and_lid_gaps(model: MorphableModel, vertices: Tensor) -> Tensor:
    """How far the lips, and the lids, are apart; negative where one is past the other.

    Args:
        model: has the landmarks.
        vertices: ``[B, V, 3]`` mm, model space.

    Returns:
        ``[B, 7]`` mm: three places of the mouth, two of each eye.
    """
    height = vertices[:, model.landmarks68, 1]
    return height[:, list(_UPPER)] - height[:, list(_LOWER)]
