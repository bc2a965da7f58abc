"""Descent on colours, landmarks and priors together, alternating with lighting and mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from focus import ops
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.face.renderer import draw
from focus.fit.landmarks import OUTLIER_DEVIATION, LandmarkObservation
from focus.fit.lighting import solve_lighting
from focus.fit.outliers import prior_log_odds, sigma_factor, visible_probability, without_specks
from focus.fit.settings import FitSettings

_LEARNING_RATES = {
    "identity": 0.04,
    "expression": 0.02,
    "albedo": 0.06,
    "rotation": 0.004,
    "translation": 0.4,
    "lighting": 0.02,
}
_LAST_RATE = 0.1
"""The learning rates fall linearly to this fraction."""

_UPPER, _LOWER = (61, 62, 63, 37, 38, 43, 44), (67, 66, 65, 41, 40, 47, 46)
"""Landmarks that face each other across the mouth and the eyes."""
_OVERLAP, _OVERLAP_SIGMA = 1.0, 1.0
"""Overlap of lips and lids that means nothing, mm, and standard deviation of what is more."""

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
    ) -> None:
        self.model, self.locator, self.target, self.observation = model, locator, target, observation
        self.expression_sigma, self.settings, self.notify = expression_sigma, settings, notify
        self.renderer = Renderer(model, target.shape[-1])
        self._blending_renderer = Renderer(model, target.shape[-1], antialias=settings.antialias)
        self._gap = lip_and_lid_gaps(model, model.mean_shape[None])
        self._fields = torch.cat([sigma_factor(model), prior_log_odds(model)], dim=1)[None]  # [1, V, 2]

    def estimate(self, parameters: FaceParameters, sigma: float, visible: Tensor | None = None) -> FittedFace:
        """Lighting and mask for given shape, pose and albedo: the closed-form half of the alternation.

        Args:
            parameters: B = 1; the lighting in it is not used.
            sigma: colour difference that is called noise.
            visible: ``[1, 1, S, S]``, the last mask; None: the middle of the face counts most.
        """
        with torch.no_grad():
            rendering = self.renderer(parameters)
            height, width = self.target.shape[2:]
            fields, _, _ = draw(rendering.screen_vertices, self._fields, self.model.topology, (height, width))
            factor, log_odds = torch.where(rendering.face_index[:, None] >= 0, fields[:, :1], 1), fields[:, 1:]
            trust = torch.sigmoid(2 * log_odds) if visible is None else visible
            albedo = self.model.albedo(parameters.albedo)
            lighting = solve_lighting(self.target, rendering, albedo, self.model.topology, rendering.mask * trust)
            parameters = replace(parameters, lighting=lighting)
            image = self.renderer(parameters).image
            visible = visible_probability(
                self.target, image, rendering.mask, sigma * factor, self.settings.cutoff, log_odds
            )
            return FittedFace(parameters, image, rendering.mask, visible)

    def descend(self, start: FaceParameters, steps: int, sigmas: tuple[float, float]) -> FittedFace:
        """Adam on all parameters, with new lighting and a new mask every few steps.

        Args:
            start: B = 1.
            steps: number of descent steps.
            sigmas: of the first and of the last mask.
        """
        variables = {name: value.clone().requires_grad_() for name, value in start.items()}
        parameters = FaceParameters(**variables)
        groups = [{"params": [variables[name]], "lr": rate} for name, rate in _LEARNING_RATES.items()]
        optimizer = torch.optim.Adam(groups, betas=(0.8, 0.95))
        visible: Tensor | None = None  # by the last mask,
        trusted = torch.ones_like(self.target[:, :1])  # and what the colours are weighed with
        for step in range(steps):
            progress = step / steps
            if visible is None or step % self.settings.mask_every == 0:
                estimate = self.estimate(parameters.detach(), sigmas[0] * (sigmas[1] / sigmas[0]) ** progress, visible)
                visible, trusted = estimate.visible, self._continued(estimate)
                variables["lighting"].data.copy_(estimate.parameters.lighting)
            for group, rate in zip(optimizer.param_groups, _LEARNING_RATES.values(), strict=True):
                group["lr"] = rate * (1 - (1 - _LAST_RATE) * progress)
            optimizer.zero_grad()
            torch.autograd.backward(self.energy(parameters, trusted))
            optimizer.step()
            if self.model.expression_prior == "unit_interval":
                variables["expression"].data.clamp_(0, 1)
            self.notify()
        face = self.estimate(parameters.detach(), sigmas[1], visible)
        return replace(face, visible=without_specks(face.visible, face.face))

    def _continued(self, face: FittedFace) -> Tensor:
        """The mask, beyond the outline like the pixels inside it where the outline is to be moved by colours."""
        if not self.settings.antialias:
            return face.visible
        around = F.max_pool2d(face.visible, 2 * _BEYOND + 1, stride=1, padding=_BEYOND)
        return torch.where(face.face > 0, face.visible, around)

    def energy(self, parameters: FaceParameters, visible: Tensor) -> Tensor:
        """Minus the logarithm of the posterior, up to a constant; a scalar."""
        rendering = self._blending_renderer(parameters)
        pixel = ops.masked_photometric_loss(self.target, rendering.image, rendering.mask * visible)
        landmarks = self.locator(rendering.vertices, parameters.rotation, rendering.screen_vertices[..., :2])[0]
        deviation = self.observation.residual(landmarks).norm(dim=1)
        landmark = F.huber_loss(deviation, torch.zeros_like(deviation), reduction="sum", delta=OUTLIER_DEVIATION)
        # Blend shapes that close an open mouth push the lower lip through the upper one where it is not open. With five
        # landmarks nothing but the colours would be against it, and they may like it.
        gap = lip_and_lid_gaps(self.model, rendering.vertices)
        overlap = (F.relu(self._gap.clamp(max=0) - gap - _OVERLAP) / _OVERLAP_SIGMA).square().sum()
        expression = parameters.expression / self.expression_sigma
        prior = sum(value.square().sum() for value in (parameters.identity, expression, parameters.albedo))
        return self.settings.pixel_weight * pixel + landmark + 0.5 * (prior + overlap)


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
