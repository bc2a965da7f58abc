"""The weighted sums of the terms: L_R, L_S and L_T."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from focus.face.camera import Camera
from focus.losses.terms import (
    ROBUST_CUTOFF,
    area,
    binary,
    distance,
    landmark,
    neighbor,
    perceptual,
    pixel,
    preserve,
    regularisation,
    robust,
)
from focus.phases import marked, phase

if TYPE_CHECKING:
    from focus.face.model import MorphableModel
    from focus.face.parameters import FaceParameters
    from focus.face.renderer import Rendering
    from focus.nets.features import FeatureExtractor


@dataclass(frozen=True)
class ReconstructionWeights:
    """Weights of L_R. The defaults are the paper's; a term of weight 0 is not computed."""

    pixel: float = 0.5
    """L_pixel."""
    robust: float = 0.5
    """The outlier-robust likelihood that stands in its place before there are masks."""
    perceptual: float = 0.25
    """L_perceptual."""
    landmark: float = 5e-4
    """L_landmark."""
    regularisation: float = 0.1
    """L_reg."""
    area: float = 0.06
    """L_area, where a predicted mask is given (joint stage; official code)."""


@dataclass(frozen=True)
class SegmentationWeights:
    """Weights of L_S. The defaults are the paper's; a term of weight 0 is not computed."""

    neighbor: float = 15.0
    """L_neighbor."""
    distance: float = 3.0
    """L_distance."""
    area: float = 0.5
    """L_area."""
    preserve: float = 2.5
    """L_preserve."""
    binary: float = 10.0
    """L_binary."""
    neighbor_window: int = 3
    """Side of the window of L_neighbor, pixels."""
    neighbor_power: Literal[1, 2] = 1
    """Power of the minimum in L_neighbor; the weight 15 was tuned with 1, the paper prints 2."""
    neighbor_swapped: bool = False
    """Search in the photo round a pixel of the render, instead of in the render round a pixel of the photo."""

    @classmethod
    def official(cls) -> SegmentationWeights:
        """The authors' released code, where it differs from the paper."""
        return cls(preserve=0.25, neighbor_window=5, neighbor_swapped=True)


@dataclass(frozen=True)
class TeachingWeights:
    """Weights of L_T, by which the reconstruction network learns given faces. A term of weight 0 is not computed."""

    place: float = 1.0
    """Mean distance of the vertices in the picture, % of its side."""
    shape: float = 0.3
    """Mean distance of the vertices of the shape, mm."""
    albedo: float = 10.0
    """Mean difference of the colours of the vertices, RGB in [0, 1]."""
    pixel: float = 10.0
    """L_pixel where the face is said to be seen: what light is learnt by."""
    regularisation: float = 0.01
    """L_reg."""
    seen: float = 1.0
    """Of a pixel of the mask that is seen, beside one that is hidden; odds are multiplied by it. More than 1 where more
    is drawn before faces than photos have there."""


def teaching_loss(
    *,
    target: Tensor,
    rendering: Rendering,
    parameters: FaceParameters,
    model: MorphableModel,
    expected: FaceParameters,
    seen: Tensor,
    weight: Tensor,
    weights: TeachingWeights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_T = L_place + 0.3 L_shape + 10 L_albedo + 10 L_pixel + 0.01 L_reg: how far a face is from a given one.

    Coefficients are compared by what they do, in the picture and on the surface: so each counts as much as it moves.

    Args:
        target: ``[B, 3, S, S]``, the photos.
        rendering: of `parameters`.
        parameters: the reconstruction.
        model: the face.
        expected: the given faces, seen by the camera of FOCUS.
        seen: ``[B, 1, S, S]`` in [0, 1], where they are seen in the photos.
        weight: ``[B]``, how far each is to be believed.
        weights: the weights.

    Returns:
        The weighted sum, and the detached, unweighted terms by name.
    """
    size = target.shape[-1]
    total = _WeightedSum(rendering.image)
    with torch.no_grad():
        shape = model.shape(expected.identity, expected.expression)

    def mean(each: Tensor) -> Tensor:
        return (weight * each.flatten(1).mean(dim=1)).mean()

    def in_place() -> Tensor:
        camera = Camera(size)
        with torch.no_grad():
            place = camera.project(camera.transform(shape, expected.rotation, expected.translation))[..., :2]
        return mean(_length(rendering.screen_vertices[..., :2] - place) * (100 / size))

    def in_albedo() -> Tensor:
        return mean(_length(model.albedo(parameters.albedo) - model.albedo(expected.albedo)))

    trusted = rendering.mask * seen * weight.view(-1, 1, 1, 1)
    total.add("place", weights.place, in_place)
    total.add("shape", weights.shape, lambda: mean(_length(rendering.vertices - shape)))
    total.add("albedo", weights.albedo, in_albedo)
    total.add("pixel", weights.pixel, lambda: pixel(target, rendering.image, trusted))
    total.add("regularisation", weights.regularisation, lambda: regularisation(parameters))
    return total.value, total.terms


def _length(vectors: Tensor) -> Tensor:
    """Of ``[..., N]``, with a gradient at 0."""
    return (vectors.square().sum(dim=-1) + 1e-8).sqrt()


def reconstruction_loss(
    *,
    target: Tensor,
    target_landmarks: Tensor,
    rendering: Rendering,
    parameters: FaceParameters,
    features: FeatureExtractor,
    weights: ReconstructionWeights,
    mask: Tensor | None = None,
    mask_gradient: bool = True,
    confidence: Tensor | None = None,
    robust_sigma: float | None = None,
    robust_cutoff: float = ROBUST_CUTOFF,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_R = 0.5 L_pixel + 0.25 L_perceptual + 5e-4 L_landmark + 0.1 L_reg, + 0.06 L_area where a mask is predicted.

    As in the released code, the mask is a function of the render: pass the output of the segmentation network applied
    to `rendering.image`, not detached, and L_area (and the mask in L_pixel) reach the encoder through it. A detached
    mask, or a true one, is a constant, and L_area then moves nothing.

    Args:
        target: ``[B, 3, S, S]``, the photos.
        target_landmarks: ``[B, 68, 2]`` pixels.
        rendering: of `parameters`.
        parameters: the reconstruction.
        features: recognition features for L_perceptual.
        weights: the weights.
        mask: ``[B, 1, S, S]``, M; None: the whole rendered face, and no L_area.
        mask_gradient: whether L_pixel reaches the render through the mask, too. L_area always does.
        confidence: ``[B, 68]``, see `landmark`.
        robust_sigma: if given, L_pixel is replaced by `robust` with this sigma over the rendered face, and `mask` must
            be None.
        robust_cutoff: see `robust`.

    Returns:
        The weighted sum, and the detached, unweighted terms by name.
    """
    if mask is not None and robust_sigma is not None:
        raise ValueError(
            "reconstruction_loss: expected a mask or robust_sigma, got both: the robust likelihood finds its own mask"
        )
    face = rendering.mask
    total = _WeightedSum(rendering.image)
    if robust_sigma is not None:

        def likelihood() -> Tensor:
            return robust(target, rendering.image, face, sigma=robust_sigma, cutoff=robust_cutoff)[0]

        total.add("robust", weights.robust, likelihood)
    else:
        trusted = mask if mask is None or mask_gradient else mask.detach()
        seen = face if trusted is None else face * trusted
        total.add("pixel", weights.pixel, lambda: pixel(target, rendering.image, seen))

    def dissimilarity() -> Tensor:
        with torch.no_grad():
            expected = _feature(features.embed, target, target_landmarks)
        return perceptual(expected, _feature(features.embed, rendering.image, rendering.landmarks))

    def of_landmarks() -> Tensor:
        return landmark(target_landmarks, rendering.landmarks, image_size=target.shape[-1], confidence=confidence)

    total.add("perceptual", weights.perceptual, dissimilarity)
    total.add("landmark", weights.landmark, of_landmarks)
    total.add("regularisation", weights.regularisation, lambda: regularisation(parameters))
    if mask is not None:
        total.add("area", weights.area, lambda: area(face, mask))
    return total.value, total.terms


def segmentation_loss(
    *,
    target: Tensor,
    rendering: Rendering,
    mask: Tensor,
    features: FeatureExtractor,
    weights: SegmentationWeights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_S = 15 L_neighbor + 3 L_distance + 0.5 L_area + 2.5 L_preserve + 10 L_binary, for the mask; the render is a
    constant.

    Args:
        target: ``[B, 3, S, S]``, the photos.
        rendering: of their reconstructions.
        mask: ``[B, 1, S, S]``, M, the output of the segmentation network.
        features: recognition features for L_distance and L_preserve.
        weights: the weights.

    Returns:
        The weighted sum, and the detached, unweighted terms by name.
    """
    image, face = rendering.image.detach(), rendering.mask
    visible = face * mask
    total = _WeightedSum(mask)

    def near() -> Tensor:
        return neighbor(
            target,
            image,
            visible,
            window=weights.neighbor_window,
            power=weights.neighbor_power,
            swapped=weights.neighbor_swapped,
        )

    total.add("neighbor", weights.neighbor, near)
    if weights.distance or weights.preserve:
        masked_map = _feature(features.feature_map, target * visible)
        support = _feature(features.feature_support, visible)

        def apart() -> Tensor:
            return distance(_feature(features.feature_map, image * visible), masked_map, support)

        def lost() -> Tensor:
            whole, whole_support = _feature(features.feature_map, target), _feature(features.feature_support, face)
            return preserve(whole, masked_map, support, whole_support)

        total.add("distance", weights.distance, apart)
        total.add("preserve", weights.preserve, lost)
    total.add("area", weights.area, lambda: area(face, mask))
    total.add("binary", weights.binary, lambda: binary(visible))
    return total.value, total.terms


def hiding_threshold(
    weights: SegmentationWeights, face_fraction: float, *, kept: float = 1.0, mismatch: float = 0.0
) -> float:
    """The colour distance beyond which L_S is less when a pixel of the face is hidden: where masks begin to go black.

    Between m = 1 and m = 0, an image with a face on the fraction f of its pixels saves eta_neighbor d + eta_distance
    `mismatch` for each of them, over all pixels, and pays eta_area over those of the face and eta_preserve `kept`; at
    both ends L_binary is 0. Hiding wins where

        d > (eta_area / f + eta_preserve kept - eta_distance mismatch) / eta_neighbor,

    with d the minimum of L_neighbor at a pixel (its square for `neighbor_power` 2). The same with means over the face
    says which images L_S would rather see black altogether.

    Args:
        weights: of L_S.
        face_fraction: f in (0, 1], the rendered face's part of the image.
        kept: mean cosine of F(I_T) and F(I_T m) where the mask keeps the pixel.
        mismatch: mean of 1 - cos(F(I_R m), F(I_T m)) there.

    Returns:
        The distance of colours in [0, 1]^3, at most sqrt(3) apart; 0 where hiding always wins.
    """
    if not 0 < face_fraction <= 1:
        raise ValueError(f"hiding_threshold: face_fraction: expected a number in (0, 1], got {face_fraction}")
    price = weights.area / face_fraction + weights.preserve * kept - weights.distance * mismatch
    if price <= 0:
        return 0.0
    if weights.neighbor == 0:
        return math.inf
    return float((price / weights.neighbor) ** (1 / weights.neighbor_power))


class _WeightedSum:
    def __init__(self, like: Tensor) -> None:
        self.value = like.new_zeros(())
        self.terms: dict[str, Tensor] = {}

    def add(self, name: str, weight: float, term: Callable[[], Tensor]) -> None:
        """Nothing for a weight of 0."""
        if not weight:
            return
        with phase(f"loss: {name}"):
            value = term()
            self.value = self.value + weight * value
            self.terms[name] = value.detach()


def _feature(compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """A method of recognition features."""
    with phase("recognition features"):
        found = compute(*(marked(tensor, "losses, backward") for tensor in inputs))
    return marked(found, "recognition features, backward")
