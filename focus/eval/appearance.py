"""Appearance error: how far the reconstructed face is from the face without its occluder."""

from __future__ import annotations

import torch
from torch import Tensor


def appearance_rmse(reconstruction: Tensor, unoccluded: Tensor, face: Tensor) -> Tensor:
    """Root mean square difference to the true rendering over the true face, its hidden part included.

    A reconstruction that copies the colour of an occluder is right about the photo and wrong about the face: here it
    pays. So does one that leaves a part of the face uncovered: there its colour is 0.

    Args:
        reconstruction: ``[B, 3, H, W]`` RGB, 0 outside the rendered face; clamped to [0, 1] here.
        unoccluded: ``[B, 3, H, W]`` RGB, the true face without occluder; clamped to [0, 1] here.
        face: ``[B, 1, H, W]`` in {0, 1}, the whole true face.

    Returns:
        ``[B]`` in [0, 1]; 0 where the true face has no pixel.
    """
    if (
        reconstruction.dim() != 4
        or reconstruction.shape != unoccluded.shape
        or face.shape != reconstruction[:, :1].shape
    ):
        raise ValueError(
            "appearance_rmse: expected reconstruction and unoccluded [B, 3, H, W] and face [B, 1, H, W], "
            f"got {list(reconstruction.shape)}, {list(unoccluded.shape)} and {list(face.shape)}"
        )
    difference = (reconstruction.clamp(0, 1) - unoccluded.clamp(0, 1)) * face
    count = reconstruction.shape[1] * face.sum(dim=(1, 2, 3), dtype=torch.float64)
    return (difference.square().sum(dim=(1, 2, 3), dtype=torch.float64) / count.clamp(min=1)).sqrt()
