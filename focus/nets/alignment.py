"""Alignment of faces to the template of ArcFace, differentiable in the images and the landmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner in the 112 x 112 template (Deng et
# al. 2019).
ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
ARCFACE_SIZE = 112

# The aligned crop that the networks see has its eyes 0.62 * 102 / 224 of its side apart, the template 35.24 / 112 of
# its side.
_CROP_TO_TEMPLATE = 1.11

# Squared pixels: landmarks closer together are no face; it keeps their gradients finite.
_SMALLEST_SPREAD = 1e-3


def five_from_68(landmarks: Tensor) -> Tensor:
    """Eye centres (mean of the corners), nose tip and mouth corners: ``[B, 68, 2]`` -> ``[B, 5, 2]``, iBUG order."""
    if landmarks.dim() != 3 or landmarks.shape[1:] != (68, 2):
        raise ValueError(f"five_from_68: landmarks: expected shape [B, 68, 2], got {list(landmarks.shape)}")
    eyes = [(landmarks[:, outer] + landmarks[:, inner]) / 2 for outer, inner in ((36, 39), (42, 45))]
    nose_and_mouth = [landmarks[:, index] for index in (30, 48, 54)]
    return torch.stack(eyes + nose_and_mouth, dim=1)


def template_points(size: int, *, like: Tensor) -> Tensor:
    """The template for a crop of `size` pixels, ``[5, 2]``, pixel centres at integers, dtype and device of `like`."""
    points = torch.tensor(ARCFACE_POINTS, dtype=like.dtype, device=like.device)
    return (points + 0.5) * (size / ARCFACE_SIZE) - 0.5


def estimate_similarity(source: Tensor, target: Tensor) -> Tensor:
    """The rotation, uniform scale and shift that bring `source` nearest to `target` (least squares; Umeyama 1991).

    With points as complex numbers, centred: scale and rotation together are sum(conj(s) t) / sum(|s|^2).

    Args:
        source: ``[B, N, 2]``.
        target: ``[B, N, 2]`` or ``[N, 2]``.

    Returns:
        ``[B, 2, 3]``: ``target ~ matrix[:, :, :2] @ source + matrix[:, :, 2]``. Points that coincide give scale 0.
    """
    target = target.expand_as(source)
    source_mean, target_mean = source.mean(dim=1), target.mean(dim=1)
    s, t = source - source_mean[:, None], target - target_mean[:, None]
    power = s.square().sum(dim=(1, 2))
    power = torch.where(power < _SMALLEST_SPREAD, _SMALLEST_SPREAD, power)
    real = (s * t).sum(dim=(1, 2)) / power
    imaginary = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(dim=1) / power
    linear = torch.stack((real, -imaginary, imaginary, real), dim=-1).view(-1, 2, 2)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    return torch.cat((linear, shift[..., None]), dim=-1)


def warp(images: Tensor, similarity: Tensor, size: int) -> Tensor:
    """Resamples images bilinearly; black where the result looks outside.

    Args:
        images: ``[B, C, H, W]``.
        similarity: ``[B, 2, 3]`` from image pixels to result pixels; scales below 1e-3 count as 1e-3.
        size: side of the result.

    Returns:
        ``[B, C, size, size]``, differentiable in `images` and `similarity`.
    """
    height, width = images.shape[2:]
    axis = torch.arange(size, dtype=similarity.dtype, device=similarity.device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    result_pixels = torch.stack((x, y), dim=-1).view(1, -1, 2)
    linear, shift = similarity[:, :, :2], similarity[:, None, :, 2]
    # A similarity [[a, -b], [b, a]] is inverted by its transpose over a^2 + b^2; row vectors transpose once more.
    squared_scale = linear[:, :, 0].square().sum(dim=1).clamp(min=1e-6)
    x, y = ((result_pixels - shift) @ (linear / squared_scale[:, None, None])).unbind(dim=-1)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1).view(-1, size, size, 2)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def align_faces(
    images: Tensor, landmarks: Tensor, size: int = ARCFACE_SIZE, *, template: Tensor | None = None
) -> Tensor:
    """Faces in the position, size and roll that ArcFace was trained on.

    Args:
        images: ``[B, C, S, S]``, crops as `focus.data` makes them (the face about half of the side).
        landmarks: ``[B, 68, 2]`` pixels of `images`.
        size: side of the result; the template is scaled to it.
        template: `template_points` of this size, where they are at hand; made here, they are copied to the device.

    Returns:
        ``[B, C, size, size]``. Crops more than twice too large are averaged down first, since bilinear sampling would
        skip pixels.
    """
    if images.dim() != 4 or images.shape[0] != landmarks.shape[0]:
        raise ValueError(
            "align_faces: expected images [B, C, S, S] and landmarks [B, 68, 2] of one batch size, got "
            f"{list(images.shape)} and {list(landmarks.shape)}"
        )
    factor = max(1, int(images.shape[-1] / (_CROP_TO_TEMPLATE * size)))
    if factor > 1:
        images = F.avg_pool2d(images, factor)
        landmarks = (landmarks + 0.5) / factor - 0.5
    points = five_from_68(landmarks)
    template = template_points(size, like=points) if template is None else template
    return warp(images, estimate_similarity(points, template), size)
