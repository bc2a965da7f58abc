"""Named phases of a training step, for whoever measures where its time goes; next to nothing while nobody does.

Networks, renderer, losses and trainer say here what they are at. `focus.train.profile` listens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


class Listener(Protocol):
    """Who measures."""

    def phase(self, name: str, *, whole: bool = False) -> AbstractContextManager[None]:
        """See `phase`."""

    def switch(self, name: str) -> None:
        """From now on, to its end, the phase that is under way has this name."""

    def iteration(self, kind: str) -> AbstractContextManager[None]:
        """Inside is one iteration of training of some kind."""


_listeners: list[Listener] = []
"""At most one. Of the process, not of the thread: the backward pass of a card has its own."""
_NOBODY: AbstractContextManager[None] = contextlib.nullcontext()


def phase(name: str, *, whole: bool = False) -> AbstractContextManager[None]:
    """``with phase("encoder"): ...``: inside, the time is that of `name`, less phases within it; with `whole` all."""
    return _listeners[0].phase(name, whole=whole) if _listeners else _NOBODY


def iteration(kind: str) -> AbstractContextManager[None]:
    """Round one iteration of training."""
    return _listeners[0].iteration(kind) if _listeners else _NOBODY


def marked(tensor: Tensor, name: str) -> Tensor:
    """The tensor; what a backward pass does once its gradient is known has this name.

    The engine of torch goes through what was done from its end to its beginning: the result of a part is marked with
    the name of that part, and what goes into it with the name of the part before.
    """
    if not _listeners or not tensor.requires_grad:
        return tensor
    listener, tensor = _listeners[0], tensor.view_as(tensor)
    tensor.register_hook(lambda _: listener.switch(name))  # type: ignore[no-untyped-call]
    return tensor


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, a listener is told of all phases of this process."""
    before = _listeners[:]
    _listeners[:] = [listener]
    try:
        yield
    finally:
        _listeners[:] = before
