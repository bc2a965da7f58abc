"""Where the faces of a run come from. The same number always gives the same batch, so that a run can stop and go on."""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from focus.data.batches import FaceBatch
from focus.data.photos import PhotoFolder
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError

_VALIDATION_SHARE = 0.2


class DataSource(Protocol):
    """Batches by number."""

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step` >= 0, on the CPU; the same for the same number."""


class SyntheticSource:
    """Fresh synthetic faces in every batch.

    Args:
        faces: the set.
        batch_size: faces per batch.
    """

    def __init__(self, faces: SyntheticFaces, batch_size: int) -> None:
        self.faces, self.batch_size = faces, batch_size

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step`."""
        return self.faces.batch(step * self.batch_size, self.batch_size)


class PhotoSource:
    """The photos of a folder in epochs: each photo once per epoch, in a new order and with new random changes.

    Args:
        photos: the folder.
        indices: which of its photos.
        batch_size: photos per batch; it may exceed their number.
        seed: of order and changes.
        augment: change the photos at random.
    """

    def __init__(
        self, photos: PhotoFolder, indices: list[int], batch_size: int, *, seed: int, augment: bool = True
    ) -> None:
        if not indices:
            raise FocusError("photos: expected at least one to train with, got none; see which were skipped, and why")
        self.photos, self.indices, self.batch_size, self.seed, self.augment = photos, indices, batch_size, seed, augment
        self._order = functools.lru_cache(maxsize=4)(self._shuffle)

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step`."""
        count = len(self.indices)
        parts = []
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        while position < end:
            epoch, first = divmod(position, count)
            chosen = self._order(epoch)[first : first + end - position]
            seed = self.seed * 1_000_003 + epoch if self.augment else None
            parts.append(self.photos.batch([self.indices[i] for i in chosen], augment_seed=seed))
            position += len(chosen)
        return parts[0] if len(parts) == 1 else FaceBatch.cat(parts)

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)))
        return rng.permutation(len(self.indices))


def split_photos(count: int, validation: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the photos for training and for validation: at most `validation`, and at most a fifth of `count`."""
    held_out = min(validation, int(count * _VALIDATION_SHARE))
    order = np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64))).permutation(count)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())
