"""Work whose result does not depend on what the caller has set in torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor


@contextmanager
def own_state(*, grad: bool) -> Iterator[None]:
    """Runs a block in torch's defaults: no inference mode, float32 and the CPU for new tensors, no autocast.

    Tensors made inside can be trained with afterwards. What is as it should be is left alone. The default dtype is one
    of the whole process: where the caller has changed it, other threads meanwhile see float32. Tensors of the caller
    that were made in inference mode stay what they are; see `trainable`.

    Args:
        grad: whether gradients are recorded in the block.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.empty(0).device.type != "cpu":  # torch 2.6 cannot say its default device after it was reset
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def trainable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made in inference mode, which could not be trained with."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()
