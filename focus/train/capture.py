"""Iterations as CUDA graphs: hundreds of launches become one, and the processor is free to fetch the next faces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from focus.data.batches import FaceBatch, mapped
from focus.errors import FocusError
from focus.phases import phase

T = TypeVar("T")
Terms = dict[str, Tensor]
Work = Callable[[FaceBatch], Terms]

WARM_UP = 3
"""Iterations of a kind that are run as they are, before one is captured: optimisers and libraries find their memory."""
_FEWEST_ALIKE = 8
"""A graph that would be replayed less often does not pay: constants that change, such as a sigma that shrinks, are
baked into it."""


class Graphs:
    """Runs iterations, and from the fourth alike on replays a graph of one.

    An iteration reads no value on the device and allocates by torch; what changes from one to the next is in tensors:
    the batch, which is copied into the memory that the graph reads, the learning rate, and the state of torch's random
    numbers, of which a graph follows seed and offset. Gradients and the state of optimisers stay where they are.

    Args:
        device: the card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._alike: dict[Hashable, int] = {}
        self._current: tuple[Hashable, _Graph] | None = None

    def run(self, key: Hashable, batch: FaceBatch, work: Work, *, left: int) -> Terms:
        """One iteration.

        Args:
            key: two iterations with one key differ by their batch, the learning rate and random numbers alone.
            batch: on the device.
            work: the iteration: from a batch to its terms, which are detached.
            left: iterations with this key that are still to come, this one among them, as far as it is known.

        Returns:
            The terms, which nobody will write over.

        Raises:
            FocusError: an iteration cannot be captured. What torch knows of the card is then not to be relied on.
        """
        if self._current is not None and self._current[0] == key and self._current[1].fits(batch):
            return self._current[1].replay(batch)
        if self._current is not None and self._current[0] != key:
            self.forget()  # its memory is wanted
        if left < _FEWEST_ALIKE:
            return work(batch)
        seen = self._alike[key] = self._alike.get(key, 0) + 1
        if seen <= WARM_UP:
            return work(batch)
        self._current = None  # of batches of another shape
        try:
            self._current = (key, _Graph(batch, work, self._device))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise FocusError(
                f"measures.graph: an iteration cannot be captured ({reason}). Go on without graphs: the same command "
                "with --resume and --measures.no-graph"
            ) from error
        return self._current[1].replay(batch)

    def forget(self) -> None:
        """Gives the memory of the graph back: gradients or the state of an optimiser are elsewhere from now on."""
        self._current = None
        self._alike.clear()


class _Graph:
    def __init__(self, batch: FaceBatch, work: Work, device: torch.device) -> None:
        self._batch = batch.map(torch.clone)
        self._graph = torch.cuda.CUDAGraph()
        # Of its own stream, which waits for what was done before, as what comes later waits for it.
        with torch.cuda.device(device), torch.cuda.graph(self._graph):
            terms = work(self._batch)
            self._names = list(terms)
            self._values = torch.stack([value.float() for value in terms.values()])

    def fits(self, batch: FaceBatch) -> bool:
        """Whether a batch has the tensors that the graph reads."""
        return _shapes(batch) == _shapes(self._batch)

    def replay(self, batch: FaceBatch) -> Terms:
        with phase("copies for the graph"):
            for to, values in zip(self._batch.tensors(), batch.tensors(), strict=True):
                to.copy_(values, non_blocking=True)
        with phase("graph of the iteration"):
            self._graph.replay()
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))


class Replays:
    """Calls without gradients, as those of trained networks: from the fourth with tensors alike on, a graph of one.

    Args:
        device: the card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._alike: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, _GraphOfCall] = {}

    def __call__(self, name: str, function: Callable[..., T], *inputs: Tensor) -> T:
        """``function(*inputs)``, in memory that nobody will write over.

        Args:
            name: of the function: two calls with one name and inputs of the same shapes differ by these alone.
            function: reads no value on the device; from tensors to a tensor, a dataclass of some, or a tuple of these.
            inputs: on the device.
        """
        key = (name, *((value.shape, value.dtype) for value in inputs))
        if key in self._graphs:
            found: T = self._graphs[key].replay(inputs)
            return found
        self._alike[key] = self._alike.get(key, 0) + 1
        if self._alike[key] <= WARM_UP:
            return function(*inputs)
        try:
            graph = self._graphs[key] = _GraphOfCall(function, inputs, self._device)
        except RuntimeError as error:
            raise FocusError(
                f"a call of the networks cannot be captured ({str(error).splitlines()[0]}): go on without graphs"
            ) from error
        replayed: T = graph.replay(inputs)
        return replayed


class _GraphOfCall:
    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor], device: torch.device) -> None:
        self._inputs = [torch.clone(value) for value in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(self._graph):
            self._output = function(*self._inputs)

    def replay(self, inputs: Sequence[Tensor]) -> Any:
        for to, values in zip(self._inputs, inputs, strict=True):
            to.copy_(values, non_blocking=True)
        self._graph.replay()
        return mapped(self._output, torch.clone)


def _shapes(batch: FaceBatch) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in batch.tensors()]
