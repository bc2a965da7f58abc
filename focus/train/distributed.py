"""Several processes, one per card, started by torchrun: each takes its share of a batch; gradients are averaged.

The losses that are ratios over the batch sum over the processes before they divide (`focus.losses.pixel`), so that two
processes with 6 faces each learn what one with 12 learns. BatchNorm shares its statistics on CUDA only.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients by their mean over the processes, with one exchange."""
    size = place()[1]
    if size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = total(torch.cat([gradient.flatten() for gradient in gradients])) / size
    for gradient, mean in zip(gradients, torch.split(joined, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


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
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    # An exchange that waits for minutes is a fault, and ends the run, unless the first process fits photos meanwhile.
    _patient[:] = [dist.new_group(backend="gloo", timeout=_PATIENCE)]
    try:
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
