"""Photos through a network: opened ahead of it and written behind it, in threads, while it works."""

from __future__ import annotations

import time
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

_AHEAD = 2
"""Batches that are opened, and results that are written, at any time beside the batch that the network has."""


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
        self._writing: deque[tuple[int, Future[_Answer]]] = deque()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="focus photos")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for index, future in self._writing:
            answer = None if future.cancelled() else future.result()
            if answer is not None and not (isinstance(answer, Failed) and answer.full):  # which is told once
                self._take(index, answer)

    def run(self) -> None:
        """To the end, or until `take` returns False."""
        for group in self._groups():
            self._reconstruct(group)
            while len(self._writing) > _AHEAD * self._network.batch_size:
                if not self._told():
                    return
        while self._writing:
            if not self._told():
                return

    def _told(self) -> bool:
        index, future = self._writing[0]
        answer = future.result()
        self._writing.popleft()
        return self._take(index, answer)

    def _groups(self) -> Iterator[list[tuple[int, _Opened]]]:
        """Photos to be reconstructed, the last ones perhaps none; what is told of the others waits for its turn."""
        group: list[tuple[int, _Opened]] = []
        while True:
            while len(self._opening) <= _AHEAD * self._network.batch_size:
                index = next(self._left, None)
                if index is None:
                    break
                self._opening.append((index, self._pool.submit(self._open, self._jobs[index])))
            if not self._opening:
                break
            index, future = self._opening.popleft()
            found = future.result()
            if isinstance(found, _Opened):
                group.append((index, found))
            else:
                if group:  # answers keep their order
                    yield group
                    group = []
                self._writing.append((index, self._pool.submit(lambda answer: answer, found)))
            if len(group) == self._network.batch_size:
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
            self._writing.append((index, self._pool.submit(Failed.by, self._jobs[index], error)))
            return
        seconds = (time.perf_counter() - begun) / len(group)
        for (index, opened), result in zip(group, found, strict=True):
            future = self._pool.submit(self._write, self._jobs[index], opened, result, opened.seconds + seconds)
            self._writing.append((index, future))

    def _write(self, job: Job, opened: _Opened, found: Reconstruction, seconds: float) -> _Answer:
        begun = time.perf_counter()
        try:
            stored = self._results.save(job, found, opened.made_from)
        except Exception as error:
            return Failed.by(job, error)
        taken = seconds + time.perf_counter() - begun
        return job.written(self._results.out, stored, taken, there_already=False)
