"""What trained networks say about photos, the one way for results and witnesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.fit.lighting import solve_lighting
from focus.train.checkpoint import Networks

T = TypeVar("T")


def directly(name: str, function: Callable[..., T], *inputs: Tensor) -> T:
    """Calls a function as it is."""
    return function(*inputs)


@torch.no_grad()
def relit(
    images: Tensor,
    face: FaceParameters,
    rendering: Rendering,
    model: MorphableModel,
    seen: Tensor,
    *,
    every: int = 1,
    first: int = 0,
) -> FaceParameters:
    """Faces in the light that least squares give for where they are said to be seen.

    A network that has seen few photos knows the light of others less well than their shape, and the segmentation
    network takes what is merely lit otherwise for something before the face. For given shape and colours the light is a
    linear problem.

    Args:
        images: ``[B, 3, S, S]``.
        face: B faces; those that are hardly seen keep their light.
        rendering: of them.
        model: the face.
        seen: ``[B, 1, S, S]`` in [0, 1].
        every: only every so many of them.
        first: the first of these.
    """
    lighting, albedo, trust = face.lighting.clone(), model.albedo(face.albedo), rendering.mask * seen
    for b in range(first, len(images), every):
        if float(trust[b].sum()) < _LEAST_SEEN * float(rendering.mask[b].sum()) or not float(trust[b].sum()):
            continue
        one = (images[b : b + 1], rendering.single(b), albedo[b : b + 1], model.faces, trust[b : b + 1])
        lighting[b] = solve_lighting(*one)[0].to(lighting)
    return replace(face, lighting=lighting)


_LEAST_SEEN = 0.05
"""Part of the face."""


@torch.no_grad()
def segmented(
    networks: Networks,
    model: MorphableModel,
    renderer: Renderer,
    images: Tensor,
    *,
    relight: bool,
    call: Callable[..., Any] = directly,
) -> tuple[FaceParameters, Rendering, Tensor]:
    """Reconstructions of photos, and where they are seen.

    Args:
        networks: in evaluation mode.
        model: the face.
        renderer: of it, for the size of the images.
        images: ``[B, 3, S, S]`` in [0, 1].
        relight: solve for the light where first masks say that the face is seen, before the masks are asked for.
        call: how the networks are called; see `focus.train.capture.Replays`.

    Returns:
        Faces, their renderings, and the log-odds ``[B, 1, S, S]`` that they are seen, the mean over each photo and its
        mirror image; they mean nothing beside the faces.
    """

    def reconstruct(images: Tensor) -> tuple[FaceParameters, Rendering]:
        face = networks.reconstruction(images)
        return face, renderer(face)

    face, rendering = call("reconstruction", reconstruct, images)
    if relight:
        first = call("segmentation", networks.segmentation.logits, rendering.image, images, rendering.mask)
        face = relit(images, face, rendering, model, torch.sigmoid(first))
        rendering = renderer(face)
    return face, rendering, _both_ways(networks, rendering, images, call)


def _both_ways(networks: Networks, rendering: Rendering, images: Tensor, call: Callable[..., Any]) -> Tensor:
    """The mean of what is said of photos and of their mirror images: it errs less than either."""
    pictures = (rendering.image, images, rendering.mask)
    both = (torch.cat([picture, picture.flip(-1)]) for picture in pictures)
    as_is, mirrored = call("segmentation", networks.segmentation.logits, *both).chunk(2)
    mean: Tensor = (as_is + mirrored.flip(-1)) / 2
    return mean
