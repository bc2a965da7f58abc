"""L_pixel, a ratio of two sums, over a batch that is not in one piece: in parts, or spread over processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed
from torch import Tensor


class JoinedPixels:
    """L_pixel of several parts of a batch as if they were one: the sums of `pixel` run over all of them.

    Each part is gone through twice: first within `counted`, where the sums are taken, then within `learnt`, where the
    gradient is that of the whole, scaled so that averaging it over the parts gives it.

    Args:
        parts: how many there are.
    """

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.counting = False
        self.sums: list[Tensor] = []
        """Of each `pixel` of a part in the order of the calls: ``[2]``, distances and pixels."""
        self._called = 0

    def count(self, sums: Tensor) -> None:
        """Adds those of one part."""
        if self._called == len(self.sums):
            self.sums.append(torch.zeros_like(sums))
        self.sums[self._called] = self.sums[self._called] + sums
        self._called += 1

    def next(self) -> Tensor:
        """Those of all parts, for the next call."""
        self._called += 1
        return self.sums[self._called - 1]

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Round one part."""
        with self._used(counting=True):
            yield

    @contextlib.contextmanager
    def learnt(self) -> Iterator[None]:
        """Round one part, when all have been counted."""
        with self._used(counting=False):
            yield

    def exchange(self) -> None:
        """Adds up what the processes of distributed training have counted."""
        self.sums = [over_processes(sums) for sums in self.sums]

    @contextlib.contextmanager
    def _used(self, *, counting: bool) -> Iterator[None]:
        self.counting, self._called = counting, 0
        _in_use.append(self)
        try:
            yield
        finally:
            _in_use.pop()


_in_use: list[JoinedPixels] = []


def processes() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def over_processes(sums: Tensor) -> Tensor:
    total = sums.clone()
    if processes() > 1:
        torch.distributed.all_reduce(total)
    return total


def joined_pixels() -> JoinedPixels | None:
    """Within one of its parts, the batch that is gone through part by part."""
    return _in_use[-1] if _in_use else None
