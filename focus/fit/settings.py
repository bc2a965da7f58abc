"""Settings of `fit_photo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from focus.bounds import IMAGE_SIZE, STEPS, Within, check_fields

_SIGMA = Within(1e-3, 1e3)


@dataclass(frozen=True)
class FitSettings:
    """How a photo is fitted. The defaults take 2 to 3 seconds for a photo on one core."""

    image_size: Annotated[int, IMAGE_SIZE] = 224
    """Side of the crop, pixels."""
    coarse_steps: Annotated[int, STEPS] = 6
    """Second-order steps at half the image size."""
    fine_steps: Annotated[int, STEPS] = 5
    """Second-order steps at the full image size."""
    mask_every: Annotated[int, Within(1, 1_000_000)] = 2
    """Steps between two estimates of mask and lighting."""
    landmark_sigma: Annotated[float, _SIGMA] = 3.0
    """Standard deviation of landmarks, pixels at a crop of 224."""
    jaw_sigma: Annotated[float, _SIGMA] = 4.5
    """The same for the jaw line, landmarks 0-16, across the line; along it they may be three times as far off."""
    blend_shape_sigma: Annotated[float, _SIGMA] = 0.5
    """Standard deviation a priori of expression coefficients in [0, 1]; all other coefficients have 1."""
    pixel_weight: Annotated[float, Within(1e-30, 1e9)] = 600.0
    """Weight of the mean color difference, against half a squared standard deviation of coefficients and landmarks."""
    estimate_distance: bool = True
    """Find out how far the camera was from the perspective of the face; else it is about a metre, with a long lens."""
    centered: bool = False
    """Take the axis of the lens to go through the middle of the crop, as networks do, not through that of the photo."""
    antialias: bool = False
    """Blend the outline of the face in the descent, which then moves it by the colors on both sides."""

    def __post_init__(self) -> None:
        check_fields(self, "FitSettings.{}".format)
