"""Settings of `fit_photo`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from focus.errors import FocusError


@dataclass(frozen=True)
class FitSettings:
    """How a photo is fitted. The defaults take about 8 seconds for a photo on one core."""

    image_size: int = 224
    """Side of the crop, pixels."""
    coarse_steps: int = 80
    """Descent steps at half the image size."""
    fine_steps: int = 80
    """Descent steps at the full image size."""
    mask_every: int = 16
    """Descent steps between two estimates of mask and lighting."""
    landmark_sigma: float = 2.0
    """Standard deviation of landmarks, pixels at a crop of 224."""
    jaw_sigma: float = 3.0
    """The same for the jaw line, landmarks 0-16."""
    blend_shape_sigma: float = 0.5
    """Standard deviation a priori of expression coefficients in [0, 1]; all other coefficients have 1."""
    pixel_weight: float = 1500.0
    """Weight of the mean color difference, against half a squared standard deviation of coefficients and landmarks."""
    first_sigma: float = 0.09
    """Color difference that is called noise, at the first mask; it falls geometrically to `last_sigma`."""
    last_sigma: float = 0.05
    """The same at the last mask."""
    cutoff: float = 3.0
    """A pixel is an outlier from this many sigma on, its neighbors apart."""
    antialias: bool = False
    """Blend the outline of the face in the descent, which then moves it by the colors on both sides."""

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise FocusError(f"FitSettings.image_size: expected at least 32 pixels, got {self.image_size}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool):
                continue
            if not value >= 0 or (value == 0 and not field.name.endswith("_steps")):
                raise FocusError(f"FitSettings.{field.name}: expected a positive number, got {value}")
