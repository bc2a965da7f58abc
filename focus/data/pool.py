"""Synthetic faces drawn once and used many times: by several trainers, or by several methods on the same test set."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import torch

from focus.data.batches import FaceBatch
from focus.data.synthetic import Sample, SyntheticFaces, assemble

_CHUNK = 64


class SyntheticPool:
    """Faces `first_index` to `first_index + count - 1` of a set, kept as bytes (about 6 S^2 + 2 S^2 bytes each).

    Args:
        faces: the set.
        first_index: of its first face.
        count: number of faces.
        occluded: see `SyntheticFaces.batch`.
        processes: how many draw; more than one starts fresh interpreters, which pays from about a thousand faces on.
        progress: called with the number of finished faces now and then.
    """

    def __init__(
        self,
        faces: SyntheticFaces,
        first_index: int,
        count: int,
        occluded: bool | None = None,
        *,
        processes: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"SyntheticPool: count must be 1 or more, got {count}")
        self.faces, self.first_index = faces, first_index
        self.samples: list[Sample] = []
        ranges = [(start, min(start + _CHUNK, first_index + count)) for start in range(first_index, first_index + count, _CHUNK)]
        if processes > 1 and len(ranges) > 1:
            # Fresh interpreters: a fork after torch has started its threads can hang.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(processes, len(ranges)), context, _start_worker, (faces,)) as executor:
                for chunk in executor.map(_draw_in_worker, *zip(*ranges, strict=True), [occluded] * len(ranges)):
                    self._extend(chunk, progress)
        else:
            for start, end in ranges:
                self._extend([faces.sample(index, occluded) for index in range(start, end)], progress)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, first: int, count: int) -> FaceBatch:
        """Faces `first` to `first + count - 1` of the pool (0 is its first), equal to those of `SyntheticFaces.batch`."""
        if first < 0 or count < 1 or first + count > len(self.samples):
            raise IndexError(f"SyntheticPool: faces {first}..{first + count - 1} of a pool of {len(self.samples)}")
        return assemble(self.faces, self.first_index + first, self.samples[first : first + count])

    def _extend(self, chunk: list[Sample], progress: Callable[[int], None] | None) -> None:
        self.samples.extend(chunk)
        if progress is not None:
            progress(len(self.samples))


class Prefetcher:
    """Draws the next batch in a background thread while the last one is in use.

    Any callable that makes batch number i; batches must be asked for in order, from `start` on.
    """

    def __init__(self, make: Callable[[int], FaceBatch], start: int = 0) -> None:
        self._make = make
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._number = start
        self._next: Future[FaceBatch] = self._executor.submit(make, start)

    def __next__(self) -> FaceBatch:
        batch = self._next.result()
        self._number += 1
        self._next = self._executor.submit(self._make, self._number)
        return batch

    def __iter__(self) -> Prefetcher:
        return self

    def close(self) -> None:
        """Stops the thread; the batch in work is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_worker_faces: SyntheticFaces | None = None


def _start_worker(faces: SyntheticFaces) -> None:
    global _worker_faces
    torch.set_num_threads(1)
    _worker_faces = faces


def _draw_in_worker(start: int, end: int, occluded: bool | None) -> list[Sample]:
    if _worker_faces is None:
        raise RuntimeError("SyntheticPool: a worker was not initialised")
    return [_worker_faces.sample(index, occluded) for index in range(start, end)]
