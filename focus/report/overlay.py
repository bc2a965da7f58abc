"""A reconstruction laid over its photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from focus.data.align import Alignment
from focus.face.lighting import directional_lighting
from focus.report.panels import OUTLIER_COLOR

if TYPE_CHECKING:
    from focus.reconstruction import Reconstruction

Values = NDArray[np.float32]

_LONGEST_SIDE = 1024
_SAMPLES, _LARGEST_RENDERING = 3, 1536
"""Samples of the face on a side of a pixel; fewer where its crop is large. One is not enough for the thin triangles of
eyelids: they come out as dashed lines."""
_GAP = 8
_FEATHER = 0.012
"""Radius that rounds the border of the face, relative to the crop."""
_CLAY = 0.82
_LIGHT_DIRECTION, _LIGHT, _AMBIENT = (-0.35, -0.6, -1.0), 0.85, 0.2
_TINT, _FADE = 0.7, 0.75


def draw_overlay(reconstruction: Reconstruction) -> NDArray[np.uint8]:
    """Four pictures side by side: the photo, the reconstruction over it, its shape in clay, and what hides the face.

    Returns:
        uint8 ``[h, w, 3]``; each picture is the whole photo, shrunk to at most 1024 pixels.
    """
    height, width = reconstruction.photo.shape[:2]
    shrink = min(1.0, _LONGEST_SIDE / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small = Image.fromarray(reconstruction.photo).resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3)
    photo: Values = np.asarray(small, np.float32) / np.float32(255)
    place = _shrunk(reconstruction.alignment, shrink)

    with torch.no_grad():
        image, face = reconstruction.render(place.image_size)
        direction = image.new_tensor([_LIGHT_DIRECTION])
        light, ambient = (image.new_full((1, 3), value) for value in (_LIGHT, _AMBIENT))
        clay, _ = reconstruction.render(
            place.image_size,
            colors=torch.full_like(reconstruction.colors, _CLAY),
            lighting=directional_lighting(direction, light, ambient)[0],
        )

    drawn, looked_at = _values(face), _values(reconstruction.face)
    blurred = _blurred(drawn)
    alpha = place.to_photo_image(_rounded(blurred), size)[..., None]
    visible = _continued(_values(reconstruction.mask), looked_at, _blurred(looked_at))
    visible = _resized(visible, place.image_size)
    hidden = alpha * place.to_photo_image(1 - visible, size)[..., None]
    grey = photo.mean(axis=2, keepdims=True)
    faded = photo + _FADE * (1 - alpha) * ((grey + 1) / 2 - photo)
    panels = [
        photo,
        photo + alpha * (place.to_photo_image(_continued(_values(image), drawn, blurred), size) - photo),
        photo + alpha * (place.to_photo_image(_continued(_values(clay), drawn, blurred), size) - photo),
        faded + _TINT * hidden * (np.array(OUTLIER_COLOR, np.float32) - faded),
    ]
    gap = np.ones((size[0], _GAP, 3), np.float32)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    return (row.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _shrunk(crop: Alignment, shrink: float) -> Alignment:
    """The crop in the pixels of a smaller photo, drawn at a multiple of the resolution that it has there."""
    size = int(np.clip(round(_SAMPLES * crop.image_size / crop.scale * shrink), 32, _LARGEST_RENDERING))
    x, y = ((value + 0.5) * shrink - 0.5 for value in crop.center)
    return Alignment(crop.scale / shrink * size / crop.image_size, (x, y), size)


def _values(image: Tensor) -> Values:
    """``[3, S, S]`` to ``[S, S, 3]``, ``[1, S, S]`` to ``[S, S]``; clamped to [0, 1]."""
    values: Values = image.detach().clamp(0, 1).float().permute(1, 2, 0).cpu().numpy()
    return values[..., 0] if values.shape[2] == 1 else values


def _resized(mask: Values, size: int) -> Values:
    resized: Values = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return resized.clip(0, 1)


def _blurred(values: Values) -> Values:
    """``[S, S]`` or ``[S, S, 3]`` in [0, 1], in steps of 1/255."""
    picture = Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(_FEATHER * len(values)))
    blurred: Values = np.asarray(picture, np.float32) / np.float32(255)
    return blurred


def _rounded(blurred: Values) -> Values:
    """Of a blurred mask: 1 inside, 0 from its border on. The teeth of cut triangles disappear, nothing bleeds in."""
    inner: Values = (2 * blurred - 1).clip(0, 1)
    return inner * inner * (3 - 2 * inner)


def _continued(values: Values, mask: Values, blurred: Values) -> Values:
    """Values that are 0 off the mask, continued past its border as far as `_rounded` shows the gaps between its teeth.

    Args:
        values: ``[S, S]`` or ``[S, S, 3]`` in [0, 1].
        mask: ``[S, S]``, 0 or 1.
        blurred: the mask, blurred.
    """
    weight = blurred.clip(0.1)  # far outside, where nothing is shown, it fades
    around = _blurred(values) / (weight if values.ndim == 2 else weight[..., None])
    inside = mask > 0 if values.ndim == 2 else mask[..., None] > 0
    continued: Values = np.where(inside, values, around).clip(0, 1)
    return continued
