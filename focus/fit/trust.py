"""How far a fit is to be believed, without anything that is known of the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from focus.fit.appearance import PixelFace
from focus.fit.results import landmark_error
from focus.fit.structure import local_correlation
from focus.reconstruction import Reconstruction

_WINDOW = 14.0
"""Standard deviation in pixels at a crop of 224."""
_CORRELATION = (0.25, 0.5)
"""Up to the first a fit is not believed, from the second on wholly. Fits of 44 photos have 0.16 to 0.80, most of them
more than 0.5; with their masks exchanged for what these hide, 0.28 in the median (docs/log.md)."""
_LANDMARK_ERROR = (6.0, 12.0)
"""In % of the distance of the outer eye corners: up to the first a fit is wholly believed, from the second on not."""
_SMALL_PART = 0.03
"""What is hidden, as a part of the face, if it is no more than this, is too little to be compared."""
_LEAST_SEEN = 0.1
_MARGIN = 0.05
"""Of correlations that mean the same."""


@dataclass(frozen=True)
class Trust:
    """Measures of one fit."""

    correlation: float
    """Of the brightness of photo and reconstruction, in windows, where the face is said to be seen: in [-1, 1]."""
    hidden_correlation: float
    """The same where it is said to be hidden; NaN where nothing is."""
    landmark_error: float
    """Of the given landmarks, in % of the distance of the outer eye corners."""
    seen: float
    """The part of the drawn face that is said to be seen, 0 to 1."""

    @property
    def doubt(self) -> str | None:
        """Why the fit is not believed at all; None where it is."""
        if not self.seen >= _LEAST_SEEN:
            return f"only {self.seen:.0%} of the face are said to be seen"
        if not self.correlation > _CORRELATION[0]:
            return f"what is said to be the face is not like it (correlation {self.correlation:.2f})"
        if 1 - self.seen > _SMALL_PART and self.hidden_correlation > self.correlation + _MARGIN:
            return (
                f"what is said to hide the face is more like it (correlation {self.hidden_correlation:.2f}) than what "
                f"is said to be the face ({self.correlation:.2f}): the mask is inverted"
            )
        if not self.landmark_error < _LANDMARK_ERROR[1]:
            return f"the landmarks are {self.landmark_error:.0f}% of the distance of the eyes away"
        return None

    @property
    def weight(self) -> float:
        """How far the fit is to be believed, 0 to 1."""
        if self.doubt is not None:
            return 0.0
        low, high = _CORRELATION
        least, most = _LANDMARK_ERROR
        like = min(1.0, (self.correlation - low) / (high - low))
        near = min(1.0, (most - self.landmark_error) / (most - least))
        return like * near


@torch.no_grad()
def trust_in(found: Reconstruction, landmarks: NDArray[np.floating]) -> Trust:
    """How far a fit is to be believed.

    Neither colours nor the size of a mask tell a right one from an inverted one: cloth is explained by the wrong
    light as well as skin by the right one. But the structure of the photo is that of the face where the face is, and
    not where it is not.

    Args:
        found: the fit.
        landmarks: ``[68, 2]`` or ``[5, 2]``, pixels of the photo, as they were given.
    """
    image, drawn = found.image, found.face[0] > 0
    size = image.shape[-1]
    pixels = drawn.flatten().nonzero()[:, 0]
    none = image.new_zeros(0, len(pixels))
    photo = image.flatten(1)[:, pixels]
    pieces = torch.zeros(size, size, dtype=torch.int64, device=image.device)
    face = PixelFace(size, pixels, photo, image, none, none, none[None], none, pieces)
    like = local_correlation(face, face.of(found.rendering)[None], _WINDOW)[0][0]
    seen = face.of(found.mask[0])

    def mean(weight: torch.Tensor) -> float:
        total = float(weight.sum())
        return float((like * weight).sum()) / total if total > 0 else float("nan")

    return Trust(
        correlation=mean(seen),
        hidden_correlation=mean(1 - seen),
        landmark_error=landmark_error(np.asarray(landmarks, dtype=np.float64), found.landmarks_68),
        seen=float(seen.mean()) if len(seen) else 0.0,
    )
