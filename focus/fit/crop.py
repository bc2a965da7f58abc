"""A photo as users hand it in, checked, and cut to the face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus.data.align import Alignment, estimate_alignment, five_from_68
from focus.data.images import read_image
from focus.errors import FocusError

_MIRRORED = -0.5
"""Sine of the angle from the line of the eyes to the line from eyes to mouth, below which a face is mirrored. Those of
profiles are near 0, on either side."""


class OpenPhoto(NamedTuple):
    """A photo and its face."""

    name: str
    photo: NDArray[np.uint8]
    """``[H, W, 3]``."""
    landmarks: NDArray[np.float64]
    """``[68, 2]`` or ``[5, 2]``, pixels of the photo."""
    alignment: Alignment
    crop: Tensor
    """``[3, S, S]`` float32 in [0, 1]."""


def open_photo(
    image: NDArray[np.uint8] | str | Path,
    landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
    image_size: int,
    name: str | None = None,
) -> OpenPhoto:
    """Reads, checks and aligns a photo.

    Args:
        image: a file, or uint8 ``[H, W, 3]``.
        landmarks: ``[68, 2]`` or ``[5, 2]`` pixels of the photo; see `fit_photo`.
        image_size: S, side of the crop.
        name: of the photo; None: the name of the file, or "photo".

    Raises:
        FocusError: an unusable image, or landmarks that are not finite, not 68 or 5, not on the photo, or
            mirrored.
    """
    if isinstance(image, (str, Path)):
        photo, name = read_image(image), name or Path(image).name
    else:
        photo, name = np.asarray(image), name or "photo"
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise FocusError(
                f"image: expected a file name or an array uint8 [H, W, 3], got {photo.dtype} {list(photo.shape)}"
            )
    points = _checked(landmarks, photo.shape[0], photo.shape[1])
    alignment = estimate_alignment(points if len(points) == 5 else five_from_68(points), image_size)
    crop = torch.from_numpy(alignment.crop_image(photo)).permute(2, 0, 1).float().div(255).contiguous()
    return OpenPhoto(name, photo, points, alignment, crop)


def _checked(
    landmarks: NDArray[np.floating] | Sequence[Sequence[float]], height: int, width: int
) -> NDArray[np.float64]:
    try:
        points = np.asarray(landmarks, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FocusError(f"landmarks: expected numbers [68, 2] or [5, 2], got something else ({error})") from error
    if points.shape not in ((68, 2), (5, 2)):
        raise FocusError(f"landmarks: expected shape [68, 2] or [5, 2], got {list(points.shape)}")
    if not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1)).tolist()
        raise FocusError(f"landmarks: expected finite numbers, got NaN or infinity at points {bad}")
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(axis=1)
    outside = len(points) - int(inside.sum())
    if 2 * outside > len(points):
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        raise FocusError(
            f"landmarks: {outside} of {len(points)} points (x {left:.0f} to {right:.0f}, y {top:.0f} "
            f"to {bottom:.0f}) lie outside of the photo of {width} x {height} pixels; do they belong to it, in its own "
            "pixels and orientation?"
        )
    left_eye, right_eye, _, left_mouth, right_mouth = points if len(points) == 5 else five_from_68(points)
    across, down = right_eye - left_eye, (left_mouth + right_mouth - left_eye - right_eye) / 2
    turn = across[0] * down[1] - across[1] * down[0]  # 1 for a frontal face that is not rolled, about 0 for a profile
    if turn < _MIRRORED * np.linalg.norm(across) * np.linalg.norm(down):
        raise FocusError(
            "landmarks: those of a mirrored face, which no photo shows; expected the image's left eye before its right "
            "eye (iBUG order), x to the right and y down"
        )
    return points
