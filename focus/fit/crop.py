"""A photo as users hand it in, checked, and cut to the face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus.data.align import Alignment, estimate_alignment, five_from_68
from focus.data.conventions import check_contrast, check_landmarks, check_order
from focus.data.images import image_orientation, read_image
from focus.errors import FocusError


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
        FocusError: an unusable image, or landmarks that are not finite, not 68 or 5, not on the photo, mirrored, in
            another order, those of the photo as stored and not as shown (EXIF orientation), or where all is of one
            colour.
    """
    if isinstance(image, (str, Path)):
        photo, name = read_image(image), name or Path(image).name
        orientation = image_orientation(image)
    else:
        photo, name, orientation = np.asarray(image), name or "photo", 1
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise FocusError(
                f"image: expected a file name or an array uint8 [H, W, 3], got {photo.dtype} {list(photo.shape)}"
            )
    points = _checked(landmarks)
    check_landmarks(points, photo, orientation, name)
    alignment = estimate_alignment(points if len(points) == 5 else five_from_68(points), image_size)
    check_order(points)
    check_contrast(points, photo, name)
    crop = torch.from_numpy(alignment.crop_image(photo)).permute(2, 0, 1).float().div(255).contiguous()
    return OpenPhoto(name, photo, points, alignment, crop)


def _checked(landmarks: NDArray[np.floating] | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    given: Any = landmarks
    if isinstance(given, Tensor):
        given = given.detach().cpu()
    if np.ma.is_masked(given):
        bad = np.flatnonzero(np.ma.getmaskarray(given).reshape(len(given), -1).any(axis=1)).tolist()
        raise FocusError(f"landmarks: expected numbers that are all known, got masked ones at points {bad}")
    try:
        array = np.asarray(given)
        if array.dtype.kind == "c":
            raise FocusError("landmarks: expected real numbers [68, 2] or [5, 2], got complex ones")
        points = np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FocusError(f"landmarks: expected numbers [68, 2] or [5, 2], got something else ({error})") from error
    if points.shape not in ((68, 2), (5, 2)):
        raise FocusError(f"landmarks: expected shape [68, 2] or [5, 2], got {list(points.shape)}")
    if not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1)).tolist()
        raise FocusError(f"landmarks: expected finite numbers, got NaN or infinity at points {bad}")
    return points
