"""Where the faces of a run come from. The same number always gives the same batch, so that a run can stop and go on."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from focus import parallel
from focus.data.batches import FaceBatch
from focus.data.lessons import lessons_of
from focus.data.synthetic import SyntheticFaces, SyntheticPool
from focus.errors import FocusError


class DataSource(Protocol):
    """Batches by number."""

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step` >= 0, on the CPU; the same for the same number."""


class PhotoBatches(Protocol):
    """Photos by index, as `PhotoFolder` and `TaughtPhotos` give them."""

    def batch(self, indices: Sequence[int], augment_seed: int | None = None) -> FaceBatch:
        """Some photos, changed at random by the seed; None: as they are."""


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
        indices: which of its photos; their order is part of the seed of all orders.
        batch_size: photos per batch; it may exceed their number.
        seed: of order and changes.
        augment: change the photos at random.
        part: (number of this process, number of processes); each gets its share of every batch.
    """

    def __init__(
        self,
        photos: PhotoBatches,
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


class MixedSource:
    """Photos with lessons and, in the same batches, synthetic faces with their truth.

    Args:
        photos: gives a part of each batch.
        synthetic: gives the rest.
    """

    def __init__(self, photos: DataSource, synthetic: DataSource) -> None:
        self.photos, self.synthetic = photos, synthetic

    def batch(self, step: int) -> FaceBatch:
        """Batch number `step`."""
        drawn = self.synthetic.batch(step)
        plain = FaceBatch(
            image=drawn.image,
            landmarks=drawn.landmarks,
            landmark_weights=drawn.landmark_weights,
            lessons=lessons_of(drawn),
            occluder=drawn.occluder,
            names=drawn.names,
        )
        return FaceBatch.cat([self.photos.batch(step), plain])


class WorkersLostError(Exception):
    """Processes that draw faces died, twice in short order; the message is the bare reason."""


class Batches:
    """Batches in a given order, drawn ahead of their use where there are workers. To be closed, or used in `with`.

    Workers ignore what a terminal or a scheduler sends to all processes of a group, since the process that trains
    answers it and ends them; they die with it, however it dies. When one of them dies alone, all are started anew.

    Args:
        sources: for workers, they must be picklable.
        order: gives (number of the source, number of the batch) of what is left to draw, at any time.
        workers: processes that draw; 0: the caller's.
        told: called with one line when workers are started anew.
    """

    def __init__(
        self,
        sources: Sequence[DataSource],
        order: Callable[[], Iterable[tuple[int, int]]],
        *,
        workers: int = 0,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._sources, self._order, self._count, self._told = sources, order, workers, told
        self._since_restart = _FEWEST_BETWEEN_RESTARTS
        self._workers: list[BaseProcess] = []
        self._on_child: Any = None
        self._iterator: Iterator[FaceBatch | _Refusal] = iter(())
        self._start()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> FaceBatch:
        while True:
            try:
                found = next(self._iterator)
                break
            except (RuntimeError, OSError, EOFError) as error:
                # A connection that breaks tells of a death that the system may take its time to record.
                reason = self._lost(1.0 if isinstance(error, RuntimeError) else 20.0)
                if reason is None:
                    raise
                if self._since_restart < _FEWEST_BETWEEN_RESTARTS:
                    raise WorkersLostError(reason) from error
            if self._told is not None:
                self._told(f"{reason}: the data workers are started anew")
            self.close()
            self._start()
            self._since_restart = 0
        self._since_restart += 1
        if isinstance(found, _Refusal):
            raise found.error
        return found

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        before = set(multiprocessing.active_children())
        handled = self._count > 0 and threading.current_thread() is threading.main_thread()
        self._on_child = signal.getsignal(signal.SIGCHLD) if handled else None
        loader = DataLoader(
            _Drawn(self._sources),
            batch_size=None,
            sampler=self._order(),
            num_workers=self._count,
            worker_init_fn=_begin_worker,
            # Fresh interpreters: a fork after torch has started its threads can hang.
            multiprocessing_context="spawn" if self._count else None,
        )
        # Blocked signals stay blocked in new processes: none reaches a worker before it can ignore them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_GROUPS if self._count else ())
        try:
            self._iterator = iter(loader)
        except OSError as error:
            raise FocusError(
                f"settings: workers: {self._count} processes cannot be started ({error.strerror or error}); use fewer"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._workers = [child for child in multiprocessing.active_children() if child not in before]
            if handled:
                # torch would raise the death of a worker wherever the main thread is, in the middle of an iteration
                # for example. Without its handler `next` raises it.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _lost(self, seconds: float) -> str | None:
        """Which workers have died, in words; None if none has within some seconds."""
        ended = multiprocessing.connection.wait(
            [worker.sentinel for worker in self._workers], timeout=seconds if self._workers else 0
        )
        for worker in self._workers:
            if worker.sentinel in ended:
                worker.join()  # a process that ends closes its connections a moment before its exit code is known
        dead = [worker for worker in self._workers if worker.exitcode not in (None, 0)]
        if not dead:
            return None
        code = dead[0].exitcode or 0
        try:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        except ValueError:
            how = f"was killed by signal {-code}"
        return f"a data worker (process {dead[0].pid}) {how}"

    def close(self) -> None:
        """Ends the workers."""
        self._iterator = iter(())
        for worker in self._workers:
            if worker.is_alive():
                worker.kill()
            worker.join()
        self._workers = []
        if self._on_child is not None:
            signal.signal(signal.SIGCHLD, self._on_child)
            self._on_child = None


class Mover:
    """Brings batches to a device; to a card by pinned memory and a stream of its own, while the card still computes.

    Args:
        device: where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: FaceBatch) -> FaceBatch:
        """The batch on the device, changed there; what is asked of the device later waits for it."""
        if self._stream is None:
            return batch.to(self._device).changed()
        pinned = batch.map(torch.Tensor.pin_memory)
        with torch.cuda.stream(self._stream):
            moved = pinned.to(self._device, non_blocking=True).changed()
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        # Its memory is that of the other stream: it must not be used anew before this one is done with it.
        for tensor in moved.tensors():
            tensor.record_stream(current)
        return moved


_OF_GROUPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FEWEST_BETWEEN_RESTARTS = 100
"""Batches. Workers that die more often than this find no memory, or have another lasting reason."""


class _Refusal:
    """An error of a worker that its user can mend. Raised in the worker, it would come with a traceback as its text."""

    def __init__(self, error: FocusError | MemoryError) -> None:
        self.error = error


class _Drawn(Dataset["FaceBatch | _Refusal"]):
    def __init__(self, sources: Sequence[DataSource]) -> None:
        self.sources = sources

    def __getitem__(self, key: tuple[int, int]) -> FaceBatch | _Refusal:
        source, number = key
        try:
            batch = self.sources[source].batch(number)
            if get_worker_info() is not None:
                _share(batch)
            return batch
        except (FocusError, MemoryError) as error:
            return _Refusal(error)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return _Refusal(MemoryError(str(error).splitlines()[0]))


def _share(values: Any) -> None:
    """Moves the tensors of a batch into shared memory. Left to torch, a shared memory that is full (64 MiB in many
    containers) ends a thread of the worker, and the trainer waits for ever.
    """
    for item in fields(values):
        value = getattr(values, item.name)
        if isinstance(value, torch.Tensor):
            value.share_memory_()  # type: ignore[no-untyped-call]
        elif is_dataclass(value):
            _share(value)


def _begin_worker(worker: int) -> None:
    for number in _OF_GROUPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_GROUPS)
    parallel.end_with_parent(signal.SIGKILL)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, numpy or Python says that memory ran out."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY)
    )


_SIGNS_OF_NO_MEMORY = (
    "can't allocate memory",  # torch's allocator of the CPU
    "not enough memory",
    "out of memory",  # CUDA's own libraries
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to mmap",  # tensors of workers, in shared memory
    "unable to allocate shared memory",
    "No space left on device",  # shared memory, too
)


def _positions(step: int, batch_size: int, part: tuple[int, int]) -> tuple[int, int]:
    """First face, and the one after the last, of a process's share of a batch."""
    number, size = part
    if batch_size % size:
        raise FocusError(f"settings: batch_size: expected a multiple of the {size} processes, got {batch_size}")
    start = step * batch_size + number * batch_size // size
    return start, start + batch_size // size


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
