"""Random changes of photos: of place, size and colour."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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

    def image(self, crop: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
        """The picture uint8 [S, S, 3] of a crop [T, T, 3] with a margin, T >= S."""
        if self == Change():
            return without_margin(crop, image_size)
        warped = self.similarity.image(crop, image_size)
        table = np.linspace(0, 1, 256) ** self.gamma  # [256], one curve for each colour after its gain
        curves = np.rint(255 * np.clip(table[:, None] * self.gain, 0, 1)).astype(np.uint8)  # [256, 3]
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


def without_margin(crop: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """The network's crop out of the cached one: the same pixels, without the margin."""
    margin = (crop.shape[0] - image_size) // 2
    return crop[margin : margin + image_size, margin : margin + image_size]
