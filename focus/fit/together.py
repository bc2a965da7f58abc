"""Several photos of one person: one identity and one albedo, and for each photo its own pose, expression and light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from focus.face import FaceParameters, Rendering
from focus.fit.gauss_newton import bounded_steps
from focus.fit.photometric import DAMPING, LESS, MORE, FittedFace, PhotometricFit, packed, unpacked


def descend_together(
    fits: Sequence[PhotometricFit],
    starts: Sequence[FaceParameters],
    steps: int,
    visible: Sequence[Tensor],
) -> list[FittedFace]:
    """As `PhotometricFit.descend`, for photos of one person.

    Args:
        fits: one for each photo, with one model.
        starts: B = 1 each; identity and albedo are those of the first in the first step, and of all afterwards.
        steps: number of steps.
        visible: ``[1, 1, S, S]`` each, masks to start from.

    Returns:
        The faces; their identity and albedo are the same.
    """
    with torch.no_grad():
        shared = starts[0]
        faces = [replace(start, identity=shared.identity, albedo=shared.albedo) for start in starts]
        masks = list(visible)
        trusted: list[Tensor] = []
        damping, system = DAMPING, None
        for step in range(steps):
            if step % fits[0].settings.mask_every == 0:
                found = [fit.estimate(face, mask) for fit, face, mask in zip(fits, faces, masks, strict=True)]
                faces, masks = [one.parameters for one in found], [one.visible for one in found]
                trusted = [fit.continued(one) for fit, one in zip(fits, found, strict=True)]
                (energy, renderings), system = _energy(fits, faces, trusted), None
            if system is None:
                system = _system(fits, faces, renderings, trusted)
            moved = _moved(fits, faces, *system, damping)
            trial, trial_renderings = _energy(fits, moved, trusted)
            if trial <= energy:
                faces, energy, renderings, system = moved, trial, trial_renderings, None
                damping *= LESS
            else:
                damping *= MORE
            for fit in fits:
                fit.notify()
        return [fit.finish(face, mask) for fit, face, mask in zip(fits, faces, masks, strict=True)]


def _energy(
    fits: Sequence[PhotometricFit], faces: Sequence[FaceParameters], trusted: Sequence[Tensor]
) -> tuple[float, list[Rendering]]:
    """Of all photos; the prior of what they share counts once."""
    each = [fit.energies(face, mask) for fit, face, mask in zip(fits, faces, trusted, strict=True)]
    prior = 0.5 * (faces[0].identity.square().sum() + faces[0].albedo.square().sum())
    energy = sum(float(energy) for energy, _ in each) - (len(fits) - 1) * float(prior)
    return energy, [rendering for _, rendering in each]


def _places(face: FaceParameters, count: int) -> list[Tensor]:
    """Where the unknowns of each of `count` photos are among all: identity and albedo first, then photo by photo."""
    device = face.identity.device
    identity, albedo = face.identity.shape[1], face.albedo.shape[1]
    before, between, after = 6, face.expression.shape[1], face.lighting[0].numel()
    own = before + between + after
    places = []
    for photo in range(count):
        free = torch.arange(own, dtype=torch.int64, device=device) + identity + albedo + photo * own
        shared = torch.arange(identity + albedo, dtype=torch.int64, device=device)
        first, second, third = torch.split(free, [before, between, after])
        places.append(torch.cat([first, shared[:identity], second, shared[identity:], third]))
    return places


def _system(
    fits: Sequence[PhotometricFit],
    faces: Sequence[FaceParameters],
    renderings: Sequence[Rendering],
    trusted: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton matrix ``[N, N]`` and gradient ``[N]`` in all unknowns."""
    places = _places(faces[0], len(fits))
    count = int(places[-1].max()) + 1
    matrix = torch.zeros(count, count, dtype=torch.float64, device=places[0].device)
    slope = matrix.new_zeros(count)
    for fit, face, rendering, mask, place in zip(fits, faces, renderings, trusted, places, strict=True):
        matrices, slopes = fit.systems(face, rendering, mask)
        matrix[place[:, None], place] += matrices[0]
        slope[place] += slopes[0]
    coefficients = torch.cat([faces[0].identity, faces[0].albedo], dim=1)[0].double()
    part = slice(0, len(coefficients))
    matrix[part, part] -= (len(fits) - 1) * torch.eye(len(coefficients), dtype=matrix.dtype, device=matrix.device)
    slope[part] -= (len(fits) - 1) * coefficients
    return matrix, slope


def _moved(
    fits: Sequence[PhotometricFit], faces: Sequence[FaceParameters], matrix: Tensor, slope: Tensor, damping: float
) -> list[FaceParameters]:
    """All faces after a damped step inside the bounds."""
    places = _places(faces[0], len(fits))
    lower, upper = torch.full_like(slope, -torch.inf), torch.full_like(slope, torch.inf)
    unknowns = [packed(face)[0] for face in faces]
    for fit, values, place in zip(fits, unknowns, places, strict=True):
        lower[place], upper[place] = fit.lower - values, fit.upper - values
    damped = matrix + torch.diag(damping * matrix.diagonal() + 1e-9)
    step = bounded_steps(damped[None], slope[None], lower[None], upper[None])[0]
    return [
        unpacked((values + step[place])[None], face)
        for values, place, face in zip(unknowns, places, faces, strict=True)
    ]
