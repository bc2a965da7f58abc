"""The losses of FOCUS (Li et al., CVPR 2023), one pure function per term, and the two weighted sums.

I_T is the photo (`target`), I_R the render (`reconstruction`), R the mask of the rendered face (`face`), M the
predicted mask (`mask`), m = R M the face that is seen (`visible`), F recognition features. Images are ``[B, 3, H, W]``
RGB in [0, 1], masks ``[B, 1, H, W]`` in [0, 1], landmarks ``[B, 68, 2]`` pixels. Every term is a scalar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from focus import ops
from focus.face.camera import Camera

if TYPE_CHECKING:
    from focus.face.model import MorphableModel
    from focus.face.parameters import FaceParameters
    from focus.face.renderer import Rendering
    from focus.nets.features import FeatureExtractor

PAPER_IMAGE_SIZE = 224
ROBUST_SIGMA = 0.043
ROBUST_CUTOFF = 3.0
_HEAVY_LANDMARKS = (slice(28, 31), slice(60, 68))
_HEAVY_LANDMARK_WEIGHT = 20.0


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


def pixel(target: Tensor, reconstruction: Tensor, visible: Tensor) -> Tensor:
    """L_pixel = sum_x ||m (I_T - I_R)||_2 / max(sum_x m, 1), sums over the pixels of the whole batch.

    In distributed training the sums run over all ranks, and the gradient is scaled so that averaging it over the ranks,
    as DistributedDataParallel does, gives the gradient of one process with the joined batch.
    """
    value = ops.masked_photometric_loss(target, reconstruction, visible)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    count = visible.sum()
    local = torch.stack((value * _at_least_one(count), count))
    total = local.detach().clone()
    torch.distributed.all_reduce(total)
    error, count = (total + (local - local.detach())).unbind()
    value = error / _at_least_one(count)
    return value.detach() + (value - value.detach()) * torch.distributed.get_world_size()


def robust(
    target: Tensor, reconstruction: Tensor, face: Tensor, *, sigma: float = ROBUST_SIGMA, cutoff: float = ROBUST_CUTOFF
) -> tuple[Tensor, Tensor]:
    """The outlier-robust likelihood that replaces L_pixel before there is a segmentation (Egger et al. 2018).

    log p_face(x) = -|I_T - I_R|^2 / (2 sigma^2) - 3/2 log(2 pi) - 3 log(sigma); a pixel of the face is an inlier where
    this exceeds its value at a distance of `cutoff` sigma. L = -mean_x(inlier(x) log p_face(x)) over all pixels of the
    batch. The choice of inliers is a constant for the gradient.

    Returns:
        The loss, and the inliers ``[B, 1, H, W]`` in {0, 1}.
    """
    return ops.outlier_robust_loss(target, reconstruction, face, sigma=sigma, cutoff=cutoff)


def annealed_sigma(progress: float, *, start: float = 0.15, end: float = ROBUST_SIGMA) -> float:
    """Sigma of `robust` while training from scratch: geometric from `start` to `end` as `progress` goes from 0 to 1.

    At the final sigma a face in the wrong light has hardly an inlier, and so no gradient to mend the light with. A wide
    sigma keeps nearly the whole face at first; its gradients are smaller by (end / start)^2, which also favours pose
    over colour early on.
    """
    return float(start * (end / start) ** min(max(progress, 0.0), 1.0))


def perceptual(target_embedding: Tensor, reconstruction_embedding: Tensor) -> Tensor:
    """L_perceptual = mean over the batch of 1 - cos(E(I_T), E(I_R)); both ``[B, D]``, unmasked."""
    return (1 - F.cosine_similarity(target_embedding, reconstruction_embedding, dim=1)).mean()


def landmark(target: Tensor, reconstruction: Tensor, *, image_size: int, confidence: Tensor | None = None) -> Tensor:
    """L_landmark = (224 / S)^2 mean (w (l_T - l_R))^2; w = 20 for points 28-30 and 60-67 (from 0), else 1.

    Args:
        target: ``[B, 68, 2]`` pixels. Not a number is allowed where the confidence is 0.
        reconstruction: ``[B, 68, 2]`` pixels.
        image_size: S.
        confidence: ``[B, 68]``, a factor on the squared distance of each point.
    """
    weight = torch.ones(target.shape[1], dtype=target.dtype, device=target.device)
    for points in _HEAVY_LANDMARKS:
        weight[points] = _HEAVY_LANDMARK_WEIGHT
    squared_weight = (weight * (PAPER_IMAGE_SIZE / image_size)).square().expand(target.shape[:2])
    if confidence is not None:
        squared_weight = squared_weight * confidence
        target = torch.where(confidence[..., None] > 0, target, reconstruction.detach())
    return (squared_weight[..., None] * (target - reconstruction).square()).mean()


def regularisation(parameters: FaceParameters) -> Tensor:
    """L_reg = (|identity|^2 + |expression|^2 + |albedo|^2) / batch / 224."""
    coefficients = (parameters.identity, parameters.expression, parameters.albedo)
    return torch.cat(coefficients, dim=1).square().sum() / (parameters.batch_size * PAPER_IMAGE_SIZE)


def neighbor(
    target: Tensor,
    reconstruction: Tensor,
    visible: Tensor,
    *,
    window: int = 3,
    power: Literal[1, 2] = 1,
    swapped: bool = False,
) -> Tensor:
    """L_neighbor = mean_x min_{x' near x} ||m(x) I_T(x) - m(x') I_R(x')||_2^power (Eq. 1).

    The paper prints a sum with power 2; its weight was tuned with the mean and power 1. `swapped` exchanges I_T and
    I_R.
    """
    first, second = (reconstruction, target) if swapped else (target, reconstruction)
    return ops.neighbor_min_loss(first, second, visible, window=window, power=power, reduction="mean")


def distance(reconstruction_map: Tensor, target_map: Tensor, support: Tensor) -> Tensor:
    """L_distance = mean_p s_m(p) (1 - cos(F(I_R m), F(I_T m))(p)) over all positions p of the batch.

    Where the mask is 0 there is nothing to compare: positions count by their support s_m in it.

    Args:
        reconstruction_map: ``[B, C, h, w]`` features F of I_R m.
        target_map: ``[B, C, h, w]`` features of I_T m.
        support: ``[B, 1, h, w]`` in [0, 1], support in m; the gradient reaches the mask here, too.
    """
    cosine = F.cosine_similarity(reconstruction_map, target_map, dim=1)[:, None]
    return (support * (1 - cosine)).mean()


def preserve(full_map: Tensor, masked_map: Tensor, support: Tensor, face_support: Tensor) -> Tensor:
    """L_preserve = mean_p (s_R(p) - s_m(p) cos(F(I_T), F(I_T m))(p)) over all positions p of the batch.

    That is 1 - cos over the face, but a position that the mask hides keeps no feature, whatever an extractor answers to
    black: its cosine counts as 0, which for features that are 0 on black it is.

    Args:
        full_map: ``[B, C, h, w]`` features F of I_T.
        masked_map: ``[B, C, h, w]`` features of I_T m.
        support: ``[B, 1, h, w]`` in [0, 1], support in m.
        face_support: ``[B, 1, h, w]`` in [0, 1], support in R.
    """
    cosine = F.cosine_similarity(full_map, masked_map, dim=1)[:, None]
    return (face_support - support * cosine).mean()


def area(face: Tensor, mask: Tensor) -> Tensor:
    """L_area = mean over images of sum_x R (1 - M) / max(sum_x R, 1): how much of the face is called hidden."""
    return ((face * (1 - mask)).sum(dim=(1, 2, 3)) / _at_least_one(face.sum(dim=(1, 2, 3)))).mean()


def binary(visible: Tensor) -> Tensor:
    """L_binary = 0.5 - mean_x |m - 0.5|: 0 for a mask of zeros and ones, at most 0.5."""
    return 0.5 - (visible - 0.5).abs().mean()


def mask_cross_entropy(
    logits: Tensor, expected: Tensor, face: Tensor, weight: Tensor | None = None, *, seen: float = 1.0
) -> Tensor:
    """Mean over images of w sum_x R BCE(M, expected) / max(sum_x R, 1), to pretrain the segmentation network.

    BCE(M, e) = -s e log M - (1 - e) log(1 - M): at its least, M / (1 - M) is s times the odds of e.

    Args:
        logits: ``[B, 1, H, W]`` log-odds of the mask (`SegmentationNetwork.logits`).
        expected: ``[B, 1, H, W]`` in [0, 1], for example the inliers of `robust`.
        face: ``[B, 1, H, W]``, R.
        weight: ``[B]``, w; None: 1.
        seen: s.
    """
    odds = None if seen == 1 else logits.new_tensor(seen)
    entropy = F.binary_cross_entropy_with_logits(logits, expected, pos_weight=odds, reduction="none")
    each = (face * entropy).sum(dim=(1, 2, 3)) / _at_least_one(face.sum(dim=(1, 2, 3)))
    return each.mean() if weight is None else (weight * each).mean()


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

    def mean(each: Tensor) -> Tensor:
        return (weight * each.flatten(1).mean(dim=1)).mean()

    with torch.no_grad():
        shape = model.shape(expected.identity, expected.expression)
    if weights.place:
        camera = Camera(size)
        with torch.no_grad():
            place = camera.project(camera.transform(shape, expected.rotation, expected.translation))[..., :2]
        distance = _length(rendering.screen_vertices[..., :2] - place)
        total.add("place", weights.place, mean(distance * (100 / size)))
    if weights.shape:
        total.add(
            "shape", weights.shape, mean(_length(model.shape(parameters.identity, parameters.expression) - shape))
        )
    if weights.albedo:
        difference = model.albedo(parameters.albedo) - model.albedo(expected.albedo)
        total.add("albedo", weights.albedo, mean(_length(difference)))
    if weights.pixel:
        trusted = rendering.mask * seen * weight.view(-1, 1, 1, 1)
        total.add("pixel", weights.pixel, pixel(target, rendering.image, trusted))
    if weights.regularisation:
        total.add("regularisation", weights.regularisation, regularisation(parameters))
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
    if weights.robust and robust_sigma is not None:
        value, _ = robust(target, rendering.image, face, sigma=robust_sigma, cutoff=robust_cutoff)
        total.add("robust", weights.robust, value)
    elif weights.pixel and robust_sigma is None:
        trusted = mask if mask is None or mask_gradient else mask.detach()
        total.add("pixel", weights.pixel, pixel(target, rendering.image, face if trusted is None else face * trusted))
    if weights.perceptual:
        with torch.no_grad():
            expected = features.embed(target, target_landmarks)
        embedding = features.embed(rendering.image, rendering.landmarks)
        total.add("perceptual", weights.perceptual, perceptual(expected, embedding))
    if weights.landmark:
        value = landmark(target_landmarks, rendering.landmarks, image_size=target.shape[-1], confidence=confidence)
        total.add("landmark", weights.landmark, value)
    if weights.regularisation:
        total.add("regularisation", weights.regularisation, regularisation(parameters))
    if weights.area and mask is not None:
        total.add("area", weights.area, area(face, mask))
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
    if weights.neighbor:
        value = neighbor(
            target,
            image,
            visible,
            window=weights.neighbor_window,
            power=weights.neighbor_power,
            swapped=weights.neighbor_swapped,
        )
        total.add("neighbor", weights.neighbor, value)
    if weights.distance or weights.preserve:
        masked_map = features.feature_map(target * visible)
        support = features.feature_support(visible)
        if weights.distance:
            value = distance(features.feature_map(image * visible), masked_map, support)
            total.add("distance", weights.distance, value)
        if weights.preserve:
            value = preserve(features.feature_map(target), masked_map, support, features.feature_support(face))
            total.add("preserve", weights.preserve, value)
    if weights.area:
        total.add("area", weights.area, area(face, mask))
    if weights.binary:
        total.add("binary", weights.binary, binary(visible))
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


def _at_least_one(count: Tensor) -> Tensor:
    """max(count, 1), with the gradient of the count where it is 1, as `ops.masked_photometric_loss` has it.

    That of torch's clamp is not the same there in all versions.
    """
    return torch.where(count < 1, 1, count)


class _WeightedSum:
    def __init__(self, like: Tensor) -> None:
        self.value = like.new_zeros(())
        self.terms: dict[str, Tensor] = {}

    def add(self, name: str, weight: float, term: Tensor) -> None:
        self.value = self.value + weight * term
        self.terms[name] = term.detach()
