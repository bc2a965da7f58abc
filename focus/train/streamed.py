"""Faces from shards: in an order that needs only a few of them at a time, and that no number of processes changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focus.data.batches import FaceBatch
from focus.data.changes import AugmentationSettings
from focus.data.photos import CroppedFace, batch_of
from focus.data.shards import ShardFolder
from focus.errors import FocusError

_LARGEST_VALIDATION_SHARE = 0.2


class ShardSource:
    """The faces of shards in epochs.

    In each epoch the shards are shuffled, and the faces of each: one long row. It is cut into as many equal lanes as a
    batch has faces, and face j of each batch is the next one of lane j. So a process reads about as many shards at a
    time as it has faces in a batch, and others than the other processes; and where the faces of a batch come from
    follows from its number alone. The few that are left over when a row is cut are others in each epoch.

    Args:
        folders: the shards.
        batch_size: faces per batch, of all processes.
        seed: of order and changes.
        augment: change the faces at random.
        validation: the first so many faces are held out, at most a fifth of all, and what else their photos show.
        part: (number of this process, number of processes); each gets its share of every batch.
        later: leave the changes of the pictures to `FaceBatch.changed`.
    """

    def __init__(
        self,
        folders: Sequence[ShardFolder],
        batch_size: int,
        *,
        seed: int,
        augment: bool = True,
        validation: int = 0,
        part: tuple[int, int] = (0, 1),
        later: bool = False,
    ) -> None:
        number, size = part
        if batch_size % size:
            raise FocusError(f"settings: batch_size: expected a multiple of the {size} processes, got {batch_size}")
        sizes = {folder.image_size for folder in folders}
        if len(sizes) != 1:
            raise FocusError(f"settings: data.shards: expected shards of one size of image, got {sorted(sizes)}")
        self.image_size = sizes.pop()
        self._folders, self._seed, self._augment, self._later = list(folders), seed, augment, later
        self._places = [(one, shard) for one in range(len(folders)) for shard in range(len(folders[one].shards))]
        counts = np.array([folders[one].shards[shard].faces for one, shard in self._places])
        self._held_out = self._first(counts, min(validation, int(counts.sum() * _LARGEST_VALIDATION_SHARE)))
        self._without = np.zeros_like(counts)
        for place, _ in self._held_out:
            self._without[place] += 1
        counts -= self._without
        self.count = int(counts.sum())
        """Faces to learn from."""
        if self.count < batch_size:
            raise FocusError(
                f"settings: batch_size: expected at most the {self.count} faces to learn from, got {batch_size}"
            )
        self._counts, self._length = counts, self.count // batch_size  # of a lane, faces
        self._augmentation = AugmentationSettings()
        self._lanes = range(number * batch_size // size, (number + 1) * batch_size // size)
        self._row = _Row.of(self._counts, seed, 0)
        self._expected: dict[int, int] = {}
        """By lane, the place in the row of the shard that comes next."""

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step`."""
        epoch, offset = divmod(step, self._length)
        if epoch != self._row.epoch:
            self._row, self._expected = _Row.of(self._counts, self._seed, epoch), {}
        faces = []
        for lane in self._lanes:
            place, number = self._row.face(lane * self._length + offset)
            faces.append(self._face(int(self._row.shards[place]), number))
            following = place + 1
            if self._expected.get(lane) != following < self._row.place((lane + 1) * self._length - 1) + 1:
                self._expected[lane] = following
                one, shard = self._places[int(self._row.shards[following])]
                self._folders[one].expect(shard)
        seed = self._seed * 1_000_003 + epoch if self._augment else None
        return batch_of(faces, self.image_size, self._augmentation, [seed] * len(faces), later=self._later)

    def validation(self) -> FaceBatch | None:
        """The faces that are held out, as they are; None: there are none."""
        if not self._held_out:
            return None
        faces = []
        for place, number in self._held_out:
            one, shard = self._places[place]
            faces.append(self._folders[one].face(shard, number))
        return batch_of(faces, self.image_size, self._augmentation, [None] * len(faces), later=False)

    @property
    def held_out(self) -> int:
        """Faces that are not learnt from."""
        return len(self._held_out)

    def _face(self, place: int, number: int) -> CroppedFace:
        """A face by its number among those of a shard to learn from."""
        one, shard = self._places[place]
        return self._folders[one].face(shard, number + int(self._without[place]))

    def _first(self, counts: NDArray[np.int64], wanted: int) -> list[tuple[int, int]]:
        """(shard, face) of the first faces, to the end of a photo."""
        found: list[tuple[int, int]] = []
        if not wanted:
            return found
        last = ""
        for place, count in enumerate(counts):
            one, shard = self._places[place]
            for number in range(int(count)):
                digest = self._folders[one].face(shard, number).digest
                if len(found) >= wanted and digest != last:
                    return found
                found.append((place, number))
                last = digest
        return found


@dataclass
class _Row:
    """All faces to learn from in the order of an epoch."""

    epoch: int
    shards: NDArray[np.int64]
    """The shards in their order."""
    _ends: NDArray[np.int64]
    """Position after the last face of each."""
    _seed: int
    _shuffled: OrderedDict[int, NDArray[np.int64]]

    @classmethod
    def of(cls, counts: NDArray[np.int64], seed: int, epoch: int) -> _Row:
        shards = _generator(seed, epoch, 0).permutation(len(counts))
        return cls(epoch, shards, np.cumsum(counts[shards]), seed, OrderedDict())

    def place(self, position: int) -> int:
        """Of the shard in the row that has a position."""
        return int(np.searchsorted(self._ends, position, side="right"))

    def face(self, position: int) -> tuple[int, int]:
        """(place of the shard in the row, face of it)."""
        place = self.place(position)
        if place not in self._shuffled:
            begin = int(self._ends[place - 1]) if place else 0
            count = int(self._ends[place]) - begin
            self._shuffled[place] = _generator(self._seed, self.epoch, 1 + int(self.shards[place])).permutation(count)
            if len(self._shuffled) > _SHUFFLED:
                self._shuffled.popitem(last=False)
        order = self._shuffled[place]
        return place, int(order[position - (int(self._ends[place]) - len(order))])


_SHUFFLED = 1024
"""Orders of shards that are kept."""


def _generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    key, counter = np.array([seed, epoch], dtype=np.uint64), np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))
