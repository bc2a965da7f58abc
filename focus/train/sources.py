"""Where the faces of a run come from. The same number always gives the same batch, so that a run can stop and go on."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset

from focus.data.batches import FaceBatch
from focus.data.photos import PhotoFolder
from focus.data.synthetic import SyntheticFaces, SyntheticPool
from focus.errors import FocusError

_VALIDATION_SHARE = 0.2


class DataSource(Protocol):
    """Batches by number."""

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step` >= 0, on the CPU; the same for the same number."""


class SyntheticSource:
    """Synthetic faces in the order of their numbers.

    Args:
        faces: the set; fresh faces in every batch, or a pool of some that are used again.
        batch_size: faces per batch.
        part: (number of this process, number of processes); each gets its share of every batch.
    """

    def __init__(
        self, faces: SyntheticFaces | SyntheticPool, batch_size: int, *, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.faces, self.batch_size, self.part = faces, batch_size, part

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step`."""
        start, end = _positions(step, self.batch_size, self.part)
        return self.faces.batch(start, end - start)


class PhotoSource:
    """The photos of a folder in epochs: each photo once per epoch, in a new order and with new random changes.

    Args:
        photos: the folder.
        indices: which of its photos.
        batch_size: photos per batch; it may exceed their number.
        seed: of order and changes.
        augment: change the photos at random.
        part: (number of this process, number of processes); each gets its share of every batch.
    """

    def __init__(
        self,
        photos: PhotoFolder,
        indices: list[int],
        batch_size: int,
        *,
        seed: int,
        augment: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if not indices:
            raise FocusError("photos: expected at least one to train with, got none; see which were skipped, and why")
        self.photos, self.indices, self.batch_size, self.seed = photos, indices, batch_size, seed
        self.augment, self.part = augment, part
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step`."""
        count = len(self.indices)
        parts = []
        position, end = _positions(step, self.batch_size, self.part)
        while position < end:
            epoch, first = divmod(position, count)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, _generator(self.seed, epoch).permutation(count)
            chosen = self._order[first : first + end - position]
            seed = self.seed * 1_000_003 + epoch if self.augment else None
            parts.append(self.photos.batch([self.indices[i] for i in chosen], augment_seed=seed))
            position += len(chosen)
        return parts[0] if len(parts) == 1 else FaceBatch.cat(parts)


def load(sources: Sequence[DataSource], order: Iterable[tuple[int, int]], *, workers: int = 0) -> Iterator[FaceBatch]:
    """Batches in a given order, drawn ahead of their use where there are workers.

    Args:
        sources: for workers, they must be picklable.
        order: (number of the source, number of the batch).
        workers: processes that draw; 0: the caller's.
    """
    return iter(
        DataLoader(
            _Batches(sources),
            batch_size=None,
            sampler=order,
            num_workers=workers,
            worker_init_fn=_ignore_interrupts,
            # Fresh interpreters: a fork after torch has started its threads can hang.
            multiprocessing_context="spawn" if workers else None,
        )
    )


class _Batches(Dataset[FaceBatch]):
    def __init__(self, sources: Sequence[DataSource]) -> None:
        self.sources = sources

    def __getitem__(self, key: tuple[int, int]) -> FaceBatch:
        source, number = key
        return self.sources[source].batch(number)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the one that trains answers it and then ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def split_photos(count: int, validation: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the photos for training and for validation: at most `validation`, and at most a fifth of `count`."""
    held_out = min(validation, int(count * _VALIDATION_SHARE))
    order = _generator(seed, 0).permutation(count)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


def _positions(step: int, batch_size: int, part: tuple[int, int]) -> tuple[int, int]:
    """First face, and the one after the last, of a process's share of a batch."""
    number, size = part
    if batch_size % size:
        raise FocusError(f"settings: batch_size: expected a multiple of the {size} processes, got {batch_size}")
    start = step * batch_size + number * batch_size // size
    return start, start + batch_size // size


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
