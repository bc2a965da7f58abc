"""The terms of the losses of FOCUS (Li et al., CVPR 2023), one pure function each.

I_T is the photo (`target`), I_R the render (`reconstruction`), R the mask of the rendered face (`face`), M the
predicted mask (`mask`), m = R M the face that is seen (`visible`), F recognition features. Images are ``[B, 3, H, W]``
RGB in [0, 1], masks ``[B, 1, H, W]`` in [0, 1], landmarks ``[B, 68, 2]`` pixels. Every term is a scalar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from focus import ops
from focus.losses.joined import joined_pixels, over_processes, processes

if TYPE_CHECKING:
    from focus.face.parameters import FaceParameters

PAPER_IMAGE_SIZE = 224
ROBUST_SIGMA = 0.043
ROBUST_CUTOFF = 3.0
_HEAVY_LANDMARKS = (slice(28, 31), slice(60, 68))
_HEAVY_LANDMARK_WEIGHT = 20.0


def pixel(target: Tensor, reconstruction: Tensor, visible: Tensor) -> Tensor:
    """L_pixel = sum_x ||m (I_T - I_R)||_2 / max(sum_x m, 1), sums over the pixels of the whole batch.

    In distributed training the sums run over all ranks, and the gradient is scaled so that averaging it over the ranks,
    as DistributedDataParallel does, gives the gradient of one process with the joined batch.
    """
    value = ops.masked_photometric_loss(target, reconstruction, visible)
    size, joined = processes(), joined_pixels()
    if size == 1 and joined is None:
        return value
    count = visible.sum()
    local = torch.stack((value * at_least_one(count), count))
    if joined is None:
        total = over_processes(local.detach())
    elif joined.counting:
        joined.count(local.detach())
        return value
    else:
        total = joined.next()
    error, count = (total + (local - local.detach())).unbind()
    value = error / at_least_one(count)
    return value.detach() + (value - value.detach()) * (size * (joined.parts if joined else 1))


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
        weight[points].fill_(_HEAVY_LANDMARK_WEIGHT)  # no number that is copied to a card
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
    return ((face * (1 - mask)).sum(dim=(1, 2, 3)) / at_least_one(face.sum(dim=(1, 2, 3)))).mean()


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
    odds = None if seen == 1 else logits.new_full((), seen)
    entropy = F.binary_cross_entropy_with_logits(logits, expected, pos_weight=odds, reduction="none")
    each = (face * entropy).sum(dim=(1, 2, 3)) / at_least_one(face.sum(dim=(1, 2, 3)))
    return each.mean() if weight is None else (weight * each).mean()


def at_least_one(count: Tensor) -> Tensor:
    """max(count, 1), with the gradient of the count where it is 1, as `ops.masked_photometric_loss` has it.

    That of torch's clamp is not the same there in all versions.
    """
    return torch.where(count < 1, 1, count)
