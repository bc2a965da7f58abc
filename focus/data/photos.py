"""A folder of real photos with a landmark file: aligned crops, and mild augmentation for training."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from focus import limits
from focus.data.align import MINIMUM_SIZE, Alignment, estimate_alignment
from focus.data.batches import FaceBatch
from focus.data.changes import AugmentationSettings, Change, Changes
from focus.data.conventions import check_landmarks
from focus.data.crops import CropStore
from focus.data.images import image_orientation, read_image
from focus.data.landmarks import (
    Face,
    Skip,
    expand_to_68,
    find_faces,
    five_from_68,
    read_landmarks,
)
from focus.errors import FocusError
from focus.files import digest_input

_CACHE_MARGIN = 1.25
"""Cached crops are this much wider than the network's, so that augmentation can move within real pixels."""
_FORMAT = 1
"""Grows when crops of the same photo and landmarks change: those of before are made anew."""


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
    given: NDArray[np.float64]
    """[68, 2] or [5, 2] pixels of the photo, as the landmark file has them."""
    alignment: Alignment
    photo_size: tuple[int, int]
    """(height, width)."""
    digest: str
    """SHA-256 of the file, in hexadecimal."""
    state: tuple[int, int] | None
    """Size of the file in bytes and time of its last change in nanoseconds, when it was read first."""


@dataclass(frozen=True)
class CroppedFace:
    """What a batch needs of a photo."""

    name: str
    crop: NDArray[np.uint8]
    """[T, T, 3], with its margin; not to be written to."""
    landmarks: NDArray[np.float64]
    """[68, 2] pixels of the crop of S x S without its margin."""
    landmark_weights: NDArray[np.float64]
    """[68]; see `expand_to_68`."""
    digest: str
    """SHA-256 of the file of the photo, in hexadecimal."""


def batch_of(
    faces: Sequence[CroppedFace],
    image_size: int,
    augmentation: AugmentationSettings,
    seeds: Sequence[int | None],
    *,
    later: bool,
) -> FaceBatch:
    """A batch, changed at random.

    Args:
        faces: B >= 1 of them.
        image_size: S.
        augmentation: ranges of random changes.
        seeds: of the changes of each; None: of none.
        later: leave the changes of the pictures to `FaceBatch.changed`.
    """
    images, points, weights, changes = [], [], [], []
    for face, seed in zip(faces, seeds, strict=True):
        change = Change()
        if seed is not None:
            change = Change.draw(augmentation, image_size, generator_of(seed, face))
        landmarks, weight = change.landmarks(face.landmarks, face.landmark_weights, image_size)
        images.append(torch.from_numpy(np.array(face.crop if later else change.image(face.crop, image_size))))
        points.append(torch.from_numpy(landmarks.astype(np.float32)))
        weights.append(torch.from_numpy(weight.astype(np.float32)))
        changes.append(change)
    stacked = torch.stack(images).permute(0, 3, 1, 2)
    return FaceBatch(
        image=stacked.contiguous() if later else stacked.float().div(255).contiguous(),
        landmarks=torch.stack(points),
        landmark_weights=torch.stack(weights),
        changes=Changes.of(changes, image_size) if later else None,
        names=[face.name for face in faces],
    )


class PhotoFolder:
    """The photos of a landmark file, each decoded once, aligned and cropped.

    Crops stay in the store, or in memory (a little more than S x S x 3 bytes each) up to `cache_bytes`; others are
    decoded again at each use, if the file is still the same.

    Args:
        folder: where the photos are; names in the landmark file mean files in it (`resolve_photo`).
        landmark_csv: see `read_landmarks`.
        image_size: side S of the crops in pixels.
        augmentation: ranges of random changes.
        cache_bytes: see above.
        store: folder of a `CropStore`, which other processes and later runs read, too; None: there is none.
        store_bytes: of its crops.

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
        store: Path | None = None,
        store_bytes: int = 64 << 30,
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
        self._crops: list[NDArray[np.uint8] | str | None] = []
        """Of each photo: itself, its key in the store, or None."""
        self._store = None if store is None else CropStore(store, margin_size(image_size), store_bytes)
        cached = 0
        for face in find_faces(self.folder, rows):
            if isinstance(face, Skip):
                self.skipped.append(face)
                continue
            try:
                item, crop = self._open(face)
            except FocusError as error:
                self.skipped.append(Skip(face.name, str(error)))
                continue
            if not isinstance(crop, str):
                cached += crop.nbytes
            self.items.append(item)
            self._crops.append(crop if isinstance(crop, str) or cached <= cache_bytes else None)
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
        return self._batch(indices, augment_seed, later=False)

    @property
    def later(self) -> PhotosChangedLater:
        """The same photos, whose batches are changed where they will be, by `FaceBatch.changed`."""
        return PhotosChangedLater(self)

    def _batch(self, indices: Sequence[int], augment_seed: int | None, *, later: bool) -> FaceBatch:
        """See `batch` and `later`."""
        if not len(indices):
            raise ValueError("PhotoFolder.batch: expected at least one index, got none")
        faces = [
            CroppedFace(
                item.name, self._crop(index), item.alignment.to_crop(item.landmarks), item.landmark_weights, item.digest
            )
            for index, item in ((index, self.items[index]) for index in indices)
        ]
        return batch_of(faces, self.image_size, self.augmentation, [augment_seed] * len(faces), later=later)

    def _crop(self, index: int) -> NDArray[np.uint8]:
        """[T, T, 3], not to be written to."""
        crop, item = self._crops[index], self.items[index]
        if isinstance(crop, str) and self._store is not None:
            with contextlib.suppress(FocusError):  # not on this machine: the photo is
                crop = self._store.crop(crop)
        if isinstance(crop, np.ndarray):
            return crop
        if file_state(item.path) != item.state:
            raise FocusError(f"{item.path}: was changed or removed while it was in use")
        return margin_alignment(item.alignment).crop_image(read_image(item.path))

    def _open(self, face: Face) -> tuple[PhotoItem, NDArray[np.uint8] | str]:
        """A photo, and its crop or the key of that."""
        values, state = face.points, file_state(face.path)
        digest = digest_input(face.path, limits.IMAGE_FILE)
        key = hashlib.sha256(
            f"{_FORMAT} {self.image_size} {digest} ".encode() + values.astype("<f8").tobytes()
        ).hexdigest()
        crop: NDArray[np.uint8] | str = key
        if self._store is not None and key in self._store:  # it was found good before
            size = self._store.photo_size(key)
            alignment = aligned(values, self.image_size)
        else:
            crop, alignment, size = cut(face, self.image_size)
            if self._store is not None and self._store.add(key, crop, size):
                crop = key
        landmarks, weights = expand_to_68(values)
        item = PhotoItem(face.name, face.photo, face.path, landmarks, weights, values, alignment, size, digest, state)
        return item, crop


def aligned(points: NDArray[np.float64], image_size: int) -> Alignment:
    """The crop of a face with 68 or five points."""
    return estimate_alignment(points if len(points) == 5 else five_from_68(points), image_size)


def cut(face: Face, image_size: int) -> tuple[NDArray[np.uint8], Alignment, tuple[int, int]]:
    """The crop of a face with its margin, its alignment without, and the photo's (height, width).

    Raises:
        FocusError: an unusable photo, or landmarks that are not those of it.
    """
    photo = read_image(face.path)
    check_landmarks(face.points, photo, image_orientation(face.path), face.name)
    alignment = aligned(face.points, image_size)
    return margin_alignment(alignment).crop_image(photo), alignment, (photo.shape[0], photo.shape[1])


class PhotosChangedLater:
    """The photos of a folder in batches that are yet to be changed; see `FaceBatch.changes`."""

    def __init__(self, photos: PhotoFolder) -> None:
        self._photos = photos

    def batch(self, indices: Sequence[int], augment_seed: int | None = None) -> FaceBatch:
        """As `PhotoFolder.batch`, which `FaceBatch.changed` makes of it, but for a rounding now and then."""
        return self._photos._batch(indices, augment_seed, later=True)


def file_state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in nanoseconds; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def generator_of(seed: int, item: PhotoItem | CroppedFace, purpose: int = 0) -> np.random.Generator:
    """Random numbers that depend on a seed, the content of a photo, and what they are for."""
    key = np.array([seed, int(item.digest[:16], 16)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=np.array([0, 0, 0, purpose], dtype=np.uint64), key=key))


def margin_alignment(alignment: Alignment) -> Alignment:
    """The same scale and centre with a margin on each side."""
    return Alignment(alignment.scale, alignment.center, margin_size(alignment.image_size))


def margin_size(image_size: int) -> int:
    """Side of a crop with its margin; the parity of the size, and so the pixel grid, is kept."""
    return image_size + 2 * int(np.ceil(image_size * (_CACHE_MARGIN - 1) / 2))
