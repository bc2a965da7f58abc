"""Random changes of photos: of place, size and colour; one by one, or of a whole batch where the batch is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from focus.data.align import Similarity
from focus.data.landmarks import MIRRORED_LANDMARKS

_SHADING_GRID = 4


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random changes; each is drawn anew for every image and seed."""

    rotation: float = 0.05
    """Standard deviation, radians."""
    scale: float = 0.03
    """Standard deviation of the logarithm."""
    shift: float = 0.015
    """Standard deviation, fraction of the image side."""
    flip_probability: float = 0.5
    gain: float = 0.08
    """Half range of the brightness factor of each colour, around 1."""
    gamma: float = 0.12
    """Half range of the logarithm of gamma."""
    shading: float = 0.0
    """Largest standard deviation of the logarithm of a smooth field of brightness over the picture."""


@dataclass(frozen=True)
class Change:
    """A change of a photo; the default changes nothing."""

    similarity: Similarity = field(default_factory=Similarity)
    gain: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Of the colours."""
    gamma: float = 1.0
    shading: tuple[float, ...] = ()
    """[4 * 4], the logarithm of a factor on the brightness, row by row, between which it is smooth; empty: 1."""

    @classmethod
    def draw(cls, settings: AugmentationSettings, image_size: int, rng: np.random.Generator) -> Change:
        """Draws one, for crops of side S."""
        angle, log_scale, shift_x, shift_y = np.clip(rng.standard_normal(4), -2, 2) * (
            settings.rotation,
            settings.scale,
            settings.shift * image_size,
            settings.shift * image_size,
        )
        mirror = bool(rng.random() < settings.flip_probability)
        gain = 1 + settings.gain * rng.uniform(-1, 1, 3)
        gamma = float(np.exp(settings.gamma * rng.uniform(-1, 1)))
        angle = -angle if mirror else angle
        shading: tuple[float, ...] = ()
        if settings.shading:
            shading = tuple((settings.shading * rng.random() * rng.standard_normal(_SHADING_GRID**2)).tolist())
        similarity = Similarity(float(angle), float(np.exp(log_scale)), (float(shift_x), float(shift_y)), mirror)
        return cls(similarity, tuple(gain.tolist()), gamma, shading)

    @property
    def curves(self) -> NDArray[np.uint8]:
        """[256, 3], what becomes of each value of each colour."""
        table = np.linspace(0, 1, 256) ** self.gamma
        curves: NDArray[np.uint8] = np.rint(255 * np.clip(table[:, None] * self.gain, 0, 1)).astype(np.uint8)
        return curves

    def image(self, crop: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
        """The picture uint8 [S, S, 3] of a crop [T, T, 3] with a margin, T >= S."""
        if self == Change():
            return without_margin(crop, image_size)
        warped = self.similarity.image(crop, image_size)
        curves = self.curves
        image = np.stack([curves[warped[..., channel], channel] for channel in range(3)], axis=-1)
        if not self.shading:
            return image
        grid = np.array(self.shading, dtype=np.float32).reshape(_SHADING_GRID, _SHADING_GRID)
        factor = np.asarray(Image.fromarray(grid).resize((image_size, image_size), Image.Resampling.BICUBIC))
        shaded: NDArray[np.uint8] = np.rint(np.clip(image * np.exp(factor)[..., None], 0, 255)).astype(np.uint8)
        return shaded

    def landmarks(
        self, landmarks: NDArray[np.float64], weights: NDArray[np.float64], image_size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Landmarks [68, 2] in pixels of the plain crop, and their weights [68], in their new order."""
        moved = self.similarity.points(landmarks, image_size)
        if self.similarity.mirror:
            return moved[MIRRORED_LANDMARKS], weights[MIRRORED_LANDMARKS]
        return moved, weights


@dataclass
class Changes:
    """The changes of B photos, to be made on any device: what `Change.image` does, but for a rounding now and then."""

    backward: Tensor
    """[B, 2, 3] float32: from a pixel of the picture to its place in the crop, (x, y, 1) to (x, y), both counted from
    their middles."""
    curves: Tensor
    """[B, 3, 256] uint8; see `Change.curves`."""
    shading: Tensor | None
    """[B, 4, 4] float32; see `Change.shading`. None: of none."""
    image_size: int
    """S, pixels."""

    @classmethod
    def of(cls, changes: Sequence[Change], image_size: int) -> Changes:
        """On the CPU."""
        backward, curves, shading = [], [], []
        for change in changes:
            turn = np.linalg.inv(change.similarity.matrix)
            backward.append(np.concatenate([turn, -(turn @ change.similarity.shift)[:, None]], axis=1))
            curves.append(change.curves.T)
            shading.append(np.reshape(change.shading or np.zeros(_SHADING_GRID**2), (_SHADING_GRID, _SHADING_GRID)))
        return cls(
            backward=torch.from_numpy(np.stack(backward).astype(np.float32)),
            curves=torch.from_numpy(np.stack(curves)),
            shading=torch.from_numpy(np.stack(shading).astype(np.float32)) if any(c.shading for c in changes) else None,
            image_size=image_size,
        )

    def images(self, crops: Tensor) -> Tensor:
        """The pictures of crops with a margin. Nothing here waits for a device.

        Args:
            crops: ``[B, 3, T, T]`` uint8, T >= S, on the device of the changes.

        Returns:
            ``[B, 3, S, S]`` float32, whole 255ths in [0, 1].
        """
        count, _, own_size, _ = crops.shape
        size = self.image_size
        pixels = torch.arange(size, dtype=torch.float32, device=crops.device) - (size - 1) / 2
        grid = torch.stack([pixels.expand(size, size), pixels[:, None].expand(size, size)]).reshape(2, -1)
        place = torch.baddbmm(self.backward[:, :, 2:], self.backward[:, :, :2], grid.expand(count, -1, -1))
        warped = _cubic(crops, place + (own_size - 1) / 2)  # [B, 3, S * S], whole numbers
        changed = self.curves.gather(2, warped.long()).float()
        if self.shading is not None:
            lines = _shading_lines(size, crops.device)
            factor = torch.exp(lines @ self.shading @ lines.T).reshape(count, 1, -1)
            changed = (changed * factor).clamp(0, 255).round()
        return (changed / 255).reshape(count, 3, size, size)


def _cubic(images: Tensor, place: Tensor) -> Tensor:
    """Pillow's cubic interpolation, and what it does at borders.

    Args:
        images: [B, 3, T, T] uint8.
        place: [B, 2, N], x and y, pixels.

    Returns:
        [B, 3, N] float32, whole numbers in [0, 255]; 0 beside the images.
    """
    count, _, size, _ = images.shape
    flat, first = images.reshape(count, 3, -1), place.floor()
    offset = place - first
    weights = torch.stack(  # [4, B, 2, N], of the pixels at -1, 0, 1, 2: R. Keys' cubic convolution with a = -1
        [
            offset * (offset * (2 - offset) - 1),
            1 + offset * offset * (offset - 2),
            offset * (1 + offset * (1 - offset)),
            offset * offset * (offset - 1),
        ]
    )
    column, row = first.long().unbind(1)
    total = torch.zeros_like(place[:, :1])
    for j in range(4):
        line = torch.zeros_like(total)
        start = (row + (j - 1)).clamp(0, size - 1) * size
        for i in range(4):
            index = start + (column + (i - 1)).clamp(0, size - 1)
            values = flat.gather(2, index[:, None].expand(-1, 3, -1))
            line = line + weights[i][:, :1] * values
        total = total + weights[j][:, 1:] * line
    inside = ((place >= -0.5) & (place < size - 0.5)).all(dim=1, keepdim=True)
    return total.clamp(0, 255).floor() * inside


@lru_cache(maxsize=8)
def _shading_lines(image_size: int, device: torch.device) -> Tensor:
    """[S, 4]: a field is ``lines @ grid @ lines.T`` (Pillow's resizing is linear in each direction)."""
    units = np.eye(_SHADING_GRID, dtype=np.float32)
    lines = [
        np.asarray(Image.fromarray(unit[:, None]).resize((1, image_size), Image.Resampling.BICUBIC))[:, 0]
        for unit in units
    ]
    with torch.inference_mode(False):  # it is kept for callers of any mode
        return torch.from_numpy(np.stack(lines, axis=1)).to(device)


def without_margin(crop: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """The network's crop out of the cached one: the same pixels, without the margin."""
    margin = (crop.shape[0] - image_size) // 2
    return crop[margin : margin + image_size, margin : margin + image_size]
