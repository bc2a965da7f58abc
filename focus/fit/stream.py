"""Photos through a network: opened ahead of it and written behind it, in threads, while it works."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from focus.fit.crop import OpenPhoto
from focus.fit.results import Failed, Job, Results, Written
from focus.reconstruction import Reconstruction

_MOST_BYTES = 1 << 30
"""Of photos that are open; where one has more, it is alone."""


@runtime_checkable
class Network(Protocol):
    """As `focus.reconstructor.Reconstructor`."""

    @property
    def batch_size(self) -> int:
        """Photos that it is best given at once."""

    def open(self, image: str | Path, landmarks: NDArray[np.float64], *, name: str) -> OpenPhoto:
        """Reads a photo. May run in any thread."""

    def photos(self, photos: Sequence[OpenPhoto]) -> list[Reconstruction]:
        """Reconstructs some."""


@dataclass(frozen=True)
class _Opened:
    photo: OpenPhoto
    made_from: Any
    seconds: float


_Answer = Written | Failed


class Stream:
    """Some faces, in order. To be closed, or used in `with`: what was written is then told, however it ends.

    Args:
        results: where they go.
        jobs: the faces.
        network: reconstructs them, in the thread of the caller.
        take: called there with index and answer of each, in order; False ends it.
    """

    def __init__(
        self, results: Results, jobs: Sequence[Job], network: Network, take: Callable[[int, _Answer], bool]
    ) -> None:
        self._results, self._jobs, self._network, self._take = results, jobs, network, take
        self._left = iter(range(len(jobs)))
        self._opening: deque[tuple[int, Future[_Opened | _Answer]]] = deque()
        self._answers: dict[int, Future[_Answer]] = {}
        self._bytes: dict[int, int] = {}
        """Of the photos that are in work."""
        self._next = 0
        """The face that is told of next."""
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="focus photos")
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> Stream:
        # Photos are decoded under filters of warnings, which threads put back in any order.
        self._warnings.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._warnings.__exit__(None, None, None)
        for index, future in sorted(self._answers.items()):
            answer = None if future.cancelled() else future.result()
            if answer is not None and not (isinstance(answer, Failed) and answer.full):  # which is told once
                self._take(index, answer)

    def run(self) -> None:
        """To the end, or until `take` returns False."""
        for group in self._groups():
            self._reconstruct(group)
            while self._next in self._answers and (
                self._answers[self._next].done() or self._is_full or len(self._answers) > self._network.batch_size
            ):
                if not self._told():
                    return
        while self._next in self._answers:
            if not self._told():
                return

    @property
    def _is_full(self) -> bool:
        return sum(self._bytes.values()) > _MOST_BYTES

    def _told(self) -> bool:
        """Tells of the next face; whether to go on."""
        answer = self._answers[self._next].result()
        del self._answers[self._next]
        self._bytes.pop(self._next, None)
        self._next += 1
        return self._take(self._next - 1, answer)

    def _groups(self) -> Iterator[list[tuple[int, _Opened]]]:
        """Photos to be reconstructed; those that need not be, or cannot, are among the answers at once."""
        group: list[tuple[int, _Opened]] = []
        while True:
            while not self._opening or (len(self._opening) <= self._network.batch_size and not self._is_full):
                index = next(self._left, None)
                if index is None:
                    break
                self._opening.append((index, self._pool.submit(self._open, self._jobs[index])))
            if not self._opening:
                break
            index, future = self._opening.popleft()
            found = future.result()
            if isinstance(found, _Opened):
                self._bytes[index] = found.photo.photo.nbytes
                group.append((index, found))
            else:
                self._answers[index] = Future()
                self._answers[index].set_result(found)
            if len(group) == self._network.batch_size or self._is_full or not group:
                yield group
                group = []
        yield group

    def _open(self, job: Job) -> _Opened | _Answer:
        begun = time.perf_counter()
        try:
            made_from, stored = self._results.begin(job)
            if stored is not None:
                return job.written(self._results.out, stored, time.perf_counter() - begun, there_already=True)
            photo = self._network.open(job.path, job.points, name=job.path.name)
        except Exception as error:
            return Failed.by(job, error)
        return _Opened(photo, made_from, time.perf_counter() - begun)

    def _reconstruct(self, group: Sequence[tuple[int, _Opened]]) -> None:
        """Of some photos; where that fails, of each alone, so that one does not take the others with it."""
        if not group:
            return
        begun = time.perf_counter()
        try:
            found = self._network.photos([opened.photo for _, opened in group])
        except Exception as error:
            if len(group) > 1:
                for one in group:
                    self._reconstruct([one])
                return
            index = group[0][0]
            self._answers[index] = self._pool.submit(Failed.by, self._jobs[index], error)
            return
        seconds = (time.perf_counter() - begun) / len(group)
        for (index, opened), result in zip(group, found, strict=True):
            taken = opened.seconds + seconds
            self._answers[index] = self._pool.submit(self._write, self._jobs[index], opened, result, taken)

    def _write(self, job: Job, opened: _Opened, found: Reconstruction, seconds: float) -> _Answer:
        begun = time.perf_counter()
        try:
            stored = self._results.save(job, found, opened.made_from)
        except Exception as error:
            return Failed.by(job, error)
        taken = seconds + time.perf_counter() - begun
        return job.written(self._results.out, stored, taken, there_already=False)
