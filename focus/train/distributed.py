"""Several processes, one per card, started by torchrun: each takes its share of a batch; gradients are averaged.

The losses that are ratios over the batch sum over the processes before they divide (`focus.losses.pixel`), so that two
processes with 6 faces each learn what one with 12 learns. BatchNorm shares its statistics on CUDA only.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from focus.errors import FocusError

T = TypeVar("T")
_finished: list[object] = []
_patient: list[dist.ProcessGroup] = []
"""The group that waits for long work of one process; at most one."""
_PATIENCE = datetime.timedelta(days=30)


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether networks compute in bfloat16 by a setting `precision`: auto means where it is faster."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch 2.6 on
    return bool(supported is not None and supported())


def pick_device(name: str) -> torch.device:
    """The device of a setting. Raises `FocusError` for CUDA where there is none, and for unknown names."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FocusError(f"settings: device: expected 'auto', 'cpu' or 'cuda', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise FocusError(f"settings: device: expected 'auto', 'cpu' or 'cuda', got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FocusError("settings: device: 'cuda' was asked for, and torch sees no card; set it to 'auto' or 'cpu'")
    return device


def place() -> tuple[int, int]:
    """(number of this process, number of processes)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def total(values: Tensor) -> Tensor:
    """Sum over the processes."""
    if place()[1] > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def by_the_first(work: Callable[[], T]) -> T:
    """What the first process has made of some work; the others wait for it.

    Raises:
        FocusError: in all processes, where the first one raised it.
    """
    if place()[1] == 1:
        return work()
    made: list[T | FocusError | None] = [None]
    if place()[0] == 0:
        try:
            made = [work()]
        except FocusError as error:
            made = [error]
    dist.broadcast_object_list(made, src=0, group=_patient[0] if _patient else None)
    if isinstance(made[0], FocusError):
        raise made[0]
    return cast(T, made[0])


class _Called(nn.Module):
    """A network as `DistributedDataParallel` wants it: with all that learns in `forward`."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self._name = network, name

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.network, self._name)(*inputs)


def shared(network: nn.Module, name: str, device: torch.device) -> DistributedDataParallel | None:
    """A network whose gradients are means over the processes, exchanged in buckets while the backward pass goes on.

    BatchNorm's statistics are not exchanged here: on cards `SyncBatchNorm` does it.

    Args:
        network: all of whose parameters learn.
        name: of the method that is called.
        device: of the network.

    Returns:
        What to call in place of the method; None where there is one process.
    """
    if place()[1] == 1:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*broadcast_buffers")  # it has no successor
        return DistributedDataParallel(
            _Called(network, name),
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


def was_left(error: BaseException) -> bool:
    """Whether an error of an exchange says that another process of the run is gone, or does not answer."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS_OF_A_LOST_PROCESS)


_SIGNS_OF_A_LOST_PROCESS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "Timed out waiting",
    "Socket Timeout",
    "NCCL",
    "ncclRemoteError",
)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun started and gives each its card; does nothing outside of torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield device
        return
    if not dist.is_available():
        raise FocusError("torchrun: this build of torch has no torch.distributed; train with one process")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # Processes that torchrun starts again share its store with those that died, whose addresses are still in it.
    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"focus/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    # An exchange that waits for minutes is a fault, and ends the run, unless the first process fits photos meanwhile.
    _patient[:] = [dist.new_group(backend="gloo", timeout=_PATIENCE)]
    try:
        with warnings.catch_warnings():
            # Of 1x1 convolutions, whose gradient has its channels side by side: it is copied, as all others are.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield device
        # No process tears its connections down while another is still in an exchange.
        last = dist.barrier(async_op=True)
        last.wait()
        # Kept: gloo's thread lets go of a finished exchange a little later, and if nobody else held it, would then need
        # the interpreter, which may be ending by then: the process aborts. torch itself keeps the group, and with it
        # the thread, to the end.
        _finished.append(last)
    finally:
        _patient.clear()
        dist.destroy_process_group()
