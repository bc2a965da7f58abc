"""A folder of real photos with a landmark file: aligned crops, and mild augmentation for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from focus import limits
from focus.data.align import MINIMUM_SIZE, Alignment, estimate_alignment
from focus.data.batches import FaceBatch
from focus.data.conventions import check_landmarks
from focus.data.images import image_orientation, read_image
from focus.data.landmarks import (
    MIRRORED_LANDMARKS,
    Face,
    Skip,
    expand_to_68,
    find_faces,
    five_from_68,
    read_landmarks,
)
from focus.errors import FocusError
from focus.files import read_input

_CACHE_MARGIN = 1.25
"""Cached crops are this much wider than the network's, so that augmentation can move within real pixels."""


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


@dataclass(frozen=True)
class PhotoItem:
    """One face that can be used."""

    name: str
    """That of the photo; with a number where the photo has several faces: each has a name of its own."""
    photo: str
    """Name of the photo, relative to the folder."""
    path: Path
    landmarks: NDArray[np.float64]
    """[68, 2] pixels of the photo."""
    landmark_weights: NDArray[np.float64]
    """[68]; see `expand_to_68`."""
    alignment: Alignment
    photo_size: tuple[int, int]
    """(height, width)."""
    digest: str
    """SHA-256 of the file, in hexadecimal."""
    state: tuple[int, int] | None
    """Size of the file in bytes and time of its last change in nanoseconds, when it was read first."""


class PhotoFolder:
    """The photos of a landmark file, each decoded once, aligned and cropped.

    Crops stay in memory (a little more than S x S x 3 bytes each) up to `cache_bytes`; later ones are decoded again at
    each use, if the file is still the same.

    Args:
        folder: where the photos are; names in the landmark file mean files in it (`resolve_photo`).
        landmark_csv: see `read_landmarks`.
        image_size: side S of the crops in pixels.

    Raises:
        FocusError: no photo is usable; the message says how many were skipped and why the first was.
    """

    def __init__(
        self,
        folder: str | Path,
        landmark_csv: str | Path,
        image_size: int,
        *,
        augmentation: AugmentationSettings | None = None,
        cache_bytes: int = 2 << 30,
    ) -> None:
        self.folder = Path(folder)
        self.image_size = image_size
        self.augmentation = augmentation or AugmentationSettings()
        if image_size < MINIMUM_SIZE:
            raise FocusError(f"image size: expected at least {MINIMUM_SIZE} pixels, got {image_size}")
        if not self.folder.is_dir():
            raise FocusError(f"{self.folder}: no such folder of photos")
        rows, skipped = read_landmarks(landmark_csv)
        self.skipped: list[Skip] = list(skipped)
        """What was left out, and why: rows of the file first, then photos."""
        self.items: list[PhotoItem] = []
        self._crops: list[NDArray[np.uint8] | None] = []
        cached = 0
        for face in find_faces(self.folder, rows):
            if isinstance(face, Skip):
                self.skipped.append(face)
                continue
            try:
                item, photo = self._open(face)
                crop = _margin_alignment(item.alignment).crop_image(photo)
            except FocusError as error:
                self.skipped.append(Skip(face.name, str(error)))
                continue
            cached += crop.nbytes
            self.items.append(item)
            self._crops.append(crop if cached <= cache_bytes else None)
        if not self.items:
            first = self.skipped[0]
            raise FocusError(
                f"{self.folder}: none of the {len(self.skipped)} rows of {landmark_csv} gives a usable photo; "
                f"the first: {first.name}: {first.reason}"
            )

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, indices: Sequence[int], augment_seed: int | None = None) -> FaceBatch:
        """Crops of some photos.

        Args:
            indices: positions in `items`.
            augment_seed: None for the plain crops; otherwise each photo gets its own random similarity, mirroring and
                colour, which depend on this seed and the photo's content only.

        Returns:
            A batch on the CPU with image, landmarks, landmark_weights and names; all truth is None.

        Raises:
            FocusError: a photo that is not kept in memory was changed or removed.
        """
        images, points, weights = [], [], []
        for index in indices:
            item = self.items[index]
            crop = self._crops[index]
            if crop is None:
                if _state(item.path) != item.state:
                    raise FocusError(f"{item.path}: was changed or removed while it was in use")
                crop = _margin_alignment(item.alignment).crop_image(read_image(item.path))
            landmarks = item.alignment.to_crop(item.landmarks)
            weight = item.landmark_weights
            if augment_seed is None:
                image = _without_margin(crop, self.image_size)
            else:
                rng = np.random.Generator(
                    np.random.Philox(key=np.array([augment_seed, int(item.digest[:16], 16)], dtype=np.uint64))
                )
                image, landmarks, weight = augment(crop, landmarks, weight, self.image_size, self.augmentation, rng)
            images.append(torch.from_numpy(image))
            points.append(torch.from_numpy(landmarks.astype(np.float32)))
            weights.append(torch.from_numpy(weight.astype(np.float32)))
        if not images:
            raise ValueError("PhotoFolder.batch: expected at least one index, got none")
        return FaceBatch(
            image=torch.stack(images).permute(0, 3, 1, 2).float().div(255).contiguous(),
            landmarks=torch.stack(points),
            landmark_weights=torch.stack(weights),
            names=[self.items[index].name for index in indices],
        )

    def _open(self, face: Face) -> tuple[PhotoItem, NDArray[np.uint8]]:
        values = face.points
        photo = read_image(face.path)
        check_landmarks(values, photo, image_orientation(face.path), face.name)
        alignment = estimate_alignment(values if len(values) == 5 else five_from_68(values), self.image_size)
        state = _state(face.path)
        digest = hashlib.sha256(read_input(face.path, limits.IMAGE_FILE)).hexdigest()
        landmarks, weights = expand_to_68(values)
        item = PhotoItem(
            face.name, face.photo, face.path, landmarks, weights, alignment, photo.shape[:2], digest, state
        )
        return item, photo


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def augment(
    crop: NDArray[np.uint8],
    landmarks: NDArray[np.float64],
    weights: NDArray[np.float64],
    image_size: int,
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """A random similarity, mirroring and colour change.

    Args:
        crop: uint8 [T, T, 3] centred on the image, T >= S: its margin is what the similarity may move into view.
        landmarks: [68, 2] pixels of the plain S x S image; weights: [68].

    Returns:
        (image uint8 [S, S, 3], landmarks [68, 2], weights [68]) after the change.
    """
    angle, log_scale, shift_x, shift_y = np.clip(rng.standard_normal(4), -2, 2) * (
        settings.rotation,
        settings.scale,
        settings.shift * image_size,
        settings.shift * image_size,
    )
    flip = rng.random() < settings.flip_probability
    gain = 1 + settings.gain * rng.uniform(-1, 1, 3)
    gamma = np.exp(settings.gamma * rng.uniform(-1, 1))

    center, crop_center = (image_size - 1) / 2, (crop.shape[0] - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.exp(log_scale) * np.array([[cos, -sin], [sin, cos]])
    if flip:
        forward = np.diag([-1.0, 1.0]) @ forward
    shift = np.array([shift_x, shift_y])
    backward = np.linalg.inv(forward)
    # Pillow's affine map takes output to input coordinates of pixel corners, where pixel i has its centre at i + 0.5.
    offset = crop_center + 0.5 - backward @ (center + 0.5 + shift)
    coefficients = (*backward[0], offset[0], *backward[1], offset[1])
    warped = Image.fromarray(crop).transform(
        (image_size, image_size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    table = np.linspace(0, 1, 256) ** gamma  # [256], one curve for each colour after its gain
    curves = np.rint(255 * np.clip(table[:, None] * gain, 0, 1)).astype(np.uint8)  # [256, 3]
    image = np.stack([curves[np.asarray(warped)[..., channel], channel] for channel in range(3)], axis=-1)

    moved = (landmarks - center) @ forward.T + center + shift
    return (image, moved[MIRRORED_LANDMARKS], weights[MIRRORED_LANDMARKS]) if flip else (image, moved, weights)


def _margin_alignment(alignment: Alignment) -> Alignment:
    """The same scale and centre with a margin on each side; the parity of the size, and so the pixel grid, is kept."""
    margin = int(np.ceil(alignment.image_size * (_CACHE_MARGIN - 1) / 2))
    return Alignment(alignment.scale, alignment.center, alignment.image_size + 2 * margin)


def _without_margin(crop: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """The network's crop out of the cached one: the same pixels, without the margin."""
    margin = (crop.shape[0] - image_size) // 2
    return crop[margin : margin + image_size, margin : margin + image_size]
