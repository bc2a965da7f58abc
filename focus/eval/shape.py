"""Shape error in millimetres after the best similarity transform: size, pose and place do not count, form does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Similarity(NamedTuple):
    """x -> scale R x + translation, for each of B point sets."""

    scale: Tensor
    """``[B]``, positive."""
    rotation: Tensor
    """``[B, 3, 3]``, determinant 1."""
    translation: Tensor
    """``[B, 3]``."""

    def apply(self, points: Tensor) -> Tensor:
        """``[B, V, 3]`` to ``[B, V, 3]``."""
        turned = points.to(self.rotation.dtype) @ self.rotation.transpose(1, 2)
        return self.scale[:, None, None] * turned + self.translation[:, None]


def fit_similarity(source: Tensor, target: Tensor) -> Similarity:
    """The least-squares similarity of corresponding points, without reflection (Umeyama 1991), in double precision.

    Args:
        source: ``[B, V, 3]``, moved; its points must not all coincide.
        target: ``[B, V, 3]``, or ``[1, V, 3]`` for all.
    """
    sizes, wanted = tuple(source.shape), tuple(target.shape)
    if len(sizes) != 3 or sizes[2] != 3 or sizes[1:] != wanted[1:] or wanted[0] not in (1, sizes[0]):
        raise ValueError(
            f"fit_similarity: expected source [B, V, 3] and target [B or 1, V, 3], got {list(sizes)} and {list(wanted)}"
        )
    source, target = source.double(), target.double()
    source_mean, target_mean = source.mean(dim=1), target.mean(dim=1)
    centred_source, centred_target = source - source_mean[:, None], target - target_mean[:, None]
    variance = centred_source.square().sum(dim=(1, 2))
    if not bool((variance > 0).all()):
        raise ValueError("fit_similarity: source: expected points that do not all coincide, with finite coordinates")
    u, singular, vh = torch.linalg.svd(centred_target.transpose(1, 2) @ centred_source)
    # The rotation nearest to the cross-covariance; where that one reflects, the weakest axis is turned back.
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.sign(torch.linalg.det(u @ vh))
    rotation = (u * signs[:, None]) @ vh
    scale = (singular * signs).sum(dim=1) / variance
    translation = target_mean - scale[:, None] * (rotation @ source_mean[..., None])[..., 0]
    return Similarity(scale, rotation, translation)


def shape_error(estimated: Tensor, true: Tensor) -> Tensor:
    """Distance of every vertex to its true place after similarity alignment of the estimated to the true shape.

    Args:
        estimated: ``[B, V, 3]`` mm, neutral shapes in vertex correspondence with `true`.
        true: ``[B, V, 3]`` mm.

    Returns:
        ``[B, V]`` mm, float32: at the size of the true face.
    """
    aligned = fit_similarity(estimated, true).apply(estimated)
    distances: Tensor = (aligned - true).norm(dim=2)
    return distances.float()


def summarise(errors: NDArray[np.float32]) -> Mapping[str, float]:
    """Median, mean and standard deviation over all vertices of all images, mm, as the NoW challenge reports them."""
    if errors.size == 0:
        raise ValueError("summarise: expected at least one error, got none")
    values = errors.astype(np.float64, copy=False)
    return {"median": float(np.median(values)), "mean": float(values.mean()), "std": float(values.std())}
