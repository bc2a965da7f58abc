"""Five-point alignment of a photo to the square crop that the networks see, as Deep3D and FOCUS do it.

A scaled orthographic camera that maps five points of a mean face to the five points of the photo, found by least
squares, gives the scale and the centre of the face; the crop is not rotated. Since there is no rotation, crop pixels
and photo pixels are related by one scale and one shift: `crop = (photo - center) * scale + (S - 1) / 2`, with pixel
centres at integers on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focus.data.landmarks import five_from_68
from focus.errors import FocusError

__all__ = ["Alignment", "align_points", "estimate_alignment", "five_from_68"]

# Eyes, nose tip and mouth corners (image-left first) of a mean face; x right, y up, z to the viewer.
REFERENCE_POINTS = np.array(
    [
        [-0.311487, 0.290361, 0.13378],
        [0.309799, 0.28972, 0.131795],
        [0.003253, -0.046179, 0.552442],
        [-0.252169, -0.381339, 0.224057],
        [0.248466, -0.381282, 0.222358],
    ]
)
REFERENCE_SCALE = 102.0 / 224.0
"""One reference unit in the crop, as a fraction of its side."""

MINIMUM_SIZE = 8
"""Smallest side of a crop, pixels."""

# Photo pixels on a side of the crop: fewer hold no face, and far more than the photo has mean points beside it.
_SMALLEST_BOX = 8.0
_LARGEST_BOX_PER_PHOTO = 16.0


@dataclass(frozen=True)
class Alignment:
    """Where a square crop lies in its photo."""

    scale: float
    """Crop pixels per photo pixel."""
    center: tuple[float, float]
    """(x, y) in photo pixels of the centre of the crop."""
    image_size: int
    """Side S of the crop in pixels."""

    def to_crop(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Photo pixels [..., 2] -> crop pixels [..., 2]."""
        return (np.asarray(points, dtype=np.float64) - self.center) * self.scale + (self.image_size - 1) / 2

    def to_photo(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Crop pixels [..., 2] -> photo pixels [..., 2]; the exact inverse of `to_crop`."""
        return (np.asarray(points, dtype=np.float64) - (self.image_size - 1) / 2) / self.scale + self.center

    def crop_image(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cuts the crop out of the photo with one bicubic resample, anti-aliased when it shrinks.

        Where the crop leaves the photo, the photo's border pixels are repeated: an artificial black edge would be the
        strongest in the picture.

        Args:
            photo: uint8 [H, W, 3] or [H, W].

        Returns:
            uint8 [S, S, 3] or [S, S].

        Raises:
            FocusError: wrong array, or the crop does not touch the photo.
        """
        photo = np.asarray(photo)
        if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (3,)) or 0 in photo.shape:
            raise FocusError(
                f"crop_image: expected a photo uint8 [H, W, 3] or [H, W], got {photo.dtype} {list(photo.shape)}"
            )
        height, width = photo.shape[:2]
        side = self.image_size / self.scale
        left, top = (value + 0.5 - side / 2 for value in self.center)  # edges, where pixel i spans i..i+1
        if (
            left >= width
            or top >= height
            or left + side <= 0
            or top + side <= 0
            or side > _LARGEST_BOX_PER_PHOTO * max(height, width)
        ):
            raise FocusError(
                f"the face box ({side:.0f} pixels wide at x {left:.0f}, y {top:.0f}) does not fit the photo of "
                f"{width} x {height} pixels; do the landmarks belong to this photo, in its own pixels and orientation?"
            )
        margin = int(np.ceil(3 / min(self.scale, 1.0))) + 1  # what the bicubic kernel reads outside of the box
        columns = np.arange(int(np.floor(left)) - margin, int(np.ceil(left + side)) + margin)
        rows = np.arange(int(np.floor(top)) - margin, int(np.ceil(top + side)) + margin)
        region = photo[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None, :]]
        box = (left - columns[0], top - rows[0], left - columns[0] + side, top - rows[0] + side)
        crop = Image.fromarray(region).resize((self.image_size, self.image_size), Image.Resampling.BICUBIC, box=box)
        return np.array(crop)

    def crop_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Takes a mask of the photo's size through the crop, as `crop_image` takes the photo.

        Args:
            mask: uint8 [H, W]; from 128 on a pixel is in it.

        Returns:
            bool [S, S]: where at least half of a crop pixel is in the mask. Beside the photo its border is repeated:
            see `inside`.
        """
        solid = np.where(np.asarray(mask) >= 128, np.uint8(255), np.uint8(0))
        inside: NDArray[np.bool_] = self.crop_image(solid) >= 128
        return inside

    def inside(self, photo_size: tuple[int, int]) -> NDArray[np.bool_]:
        """bool [S, S], crop pixels whose centre lies on the photo of (height, width): beside it there is no truth."""
        height, width = photo_size
        pixels = np.arange(self.image_size, dtype=np.float64)
        x, y = self.to_photo(np.stack([pixels, pixels], axis=1)).T
        columns, rows = (x >= -0.5) & (x <= width - 0.5), (y >= -0.5) & (y <= height - 0.5)
        both: NDArray[np.bool_] = rows[:, None] & columns[None]
        return both

    def to_photo_image(
        self, crop: NDArray[np.floating], photo_size: tuple[int, int], fill: float = 0.0
    ) -> NDArray[np.float32]:
        """Lays an image or mask of the crop back over the photo (bilinear, anti-aliased when it shrinks).

        Args:
            crop: [S, S] or [S, S, C].
            photo_size: (height, width) of the photo.
            fill: value of photo pixels whose centre is outside of the crop.

        Returns:
            float32 [H, W] or [H, W, C].
        """
        crop = np.asarray(crop, dtype=np.float32)
        size = self.image_size
        if crop.ndim not in (2, 3) or crop.shape[:2] != (size, size):
            raise FocusError(
                f"to_photo_image: expected a crop [{size}, {size}] or [{size}, {size}, C], got {list(crop.shape)}"
            )
        height, width = photo_size
        result = np.full((height, width, *crop.shape[2:]), fill, dtype=np.float32)
        first = np.ceil(self.to_photo(np.array([-0.5, -0.5]))).astype(int)
        last = np.floor(self.to_photo(np.array([size - 0.5, size - 0.5]))).astype(int)
        left, top = np.maximum(first, 0)
        right, bottom = np.minimum(last + 1, (width, height))
        if right <= left or bottom <= top:
            return result
        # The box of whole photo pixels may reach half a photo pixel beyond the crop: the repeated border is for that.
        margin = int(np.ceil(self.scale)) + 1
        pad = np.pad(crop, [(margin, margin), (margin, margin)] + [(0, 0)] * (crop.ndim - 2), mode="edge")
        x0, y0 = self.to_crop(np.array([left - 0.5, top - 0.5])) + 0.5 + margin
        x1, y1 = self.to_crop(np.array([right - 0.5, bottom - 0.5])) + 0.5 + margin
        planes = [pad] if crop.ndim == 2 else [pad[..., channel] for channel in range(crop.shape[2])]
        patches = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(plane)).resize(
                    (int(right - left), int(bottom - top)), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)
                )
            )
            for plane in planes
        ]
        result[top:bottom, left:right] = patches[0] if crop.ndim == 2 else np.stack(patches, axis=-1)
        return result

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """For JSON files: `scale`, `center`, `image_size`."""
        return {"scale": self.scale, "center": list(self.center), "image_size": self.image_size}


@dataclass(frozen=True)
class Similarity:
    """A change of a square picture: mirrored first if so, then turned and scaled round its middle, then shifted."""

    angle: float = 0.0
    """Radians, clockwise as it is seen."""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """(x, y), pixels."""
    mirror: bool = False

    @property
    def matrix(self) -> NDArray[np.float64]:
        """[2, 2], of points as seen from the middle, but for the shift."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn: NDArray[np.float64] = self.scale * np.array([[cos, -sin], [sin, cos]])
        return turn @ np.diag([-1.0, 1.0]) if self.mirror else turn

    def points(self, points: NDArray[np.floating], image_size: int) -> NDArray[np.float64]:
        """Pixels [..., 2] of a picture of side S to where they are afterwards."""
        center = (image_size - 1) / 2
        moved: NDArray[np.float64] = (points - center) @ self.matrix.T + center + self.shift
        return moved

    def image(
        self, image: NDArray[np.uint8], image_size: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
    ) -> NDArray[np.uint8]:
        """The picture of side S after the change.

        Args:
            image: uint8 [T, T, 3] or [T, T], whose middle is that of the picture; T > S: a margin to move into view.
            image_size: S.
            resampling: how values between pixels are found.

        Returns:
            uint8 [S, S, 3] or [S, S]; 0 beyond the margin.
        """
        center, own_center = (image_size - 1) / 2, (image.shape[0] - 1) / 2
        backward = np.linalg.inv(self.matrix)
        # Pillow's affine map takes output to input, in coordinates of corners: pixel i has its centre at i + 0.5.
        offset = own_center + 0.5 - backward @ (center + 0.5 + np.array(self.shift))
        coefficients = (*backward[0], offset[0], *backward[1], offset[1])
        warped = Image.fromarray(image).transform(
            (image_size, image_size), Image.Transform.AFFINE, coefficients, resampling
        )
        return np.asarray(warped)


def estimate_alignment(points5: NDArray[np.floating], image_size: int) -> Alignment:
    """The crop of a face from five points.

    Args:
        points5: [5, 2] pixels of the photo (x right, y down): image-left eye, image-right eye, nose tip, image-left and
            image-right mouth corner.
        image_size: side S of the crop. The face has the same size relative to the crop at every S.

    Raises:
        FocusError: the points are not finite, or so close together that there is no face between them.
    """
    points = np.asarray(points5, dtype=np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise FocusError(
            f"estimate_alignment: expected 5 finite points [5, 2], got shape {list(points.shape)}: {points.tolist()}"
        )
    if image_size < MINIMUM_SIZE:
        raise FocusError(f"estimate_alignment: image_size must be at least {MINIMUM_SIZE}, got {image_size}")
    scale, center = align_points(points)
    box = scale / REFERENCE_SCALE
    if box < _SMALLEST_BOX:
        raise FocusError(
            f"the five points span a crop of only {box:.1f} photo pixels; expected distinct points on a face, "
            f"got {np.round(points, 2).tolist()}"
        )
    return Alignment(
        scale=REFERENCE_SCALE * image_size / scale, center=(float(center[0]), float(center[1])), image_size=image_size
    )


def align_points(points5: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Least-squares scaled orthographic camera x = s R1.X + tx, y = s R2.X + ty of the reference face.

    Args:
        points5: [5, 2], y down.

    Returns:
        (s, (tx, ty)): pixels per reference unit (mean norm of both rows); the image of the reference origin, y down.
    """
    solution = _PSEUDO_INVERSE @ points5  # rows: x, y, z and 1; the sign of y changes no norm
    scale = float(np.linalg.norm(solution[:3], axis=0).mean())
    return scale, solution[3]


_PSEUDO_INVERSE = np.linalg.pinv(np.concatenate([REFERENCE_POINTS, np.ones((5, 1))], axis=1))  # [4, 5]
