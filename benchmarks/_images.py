"""Cases of the losses on images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _harness import Case, Results

Loss = Callable[..., torch.Tensor]


def loss_case(
    name: str,
    ours: Loss,
    twin: Loss,
    batch: int,
    side: int,
    device: torch.device,
    *,
    released: Loss | None = None,
    small: int | None = None,
    axis: str = "",
    amount: int = 0,
) -> Case:
    """A loss of target, reconstruction and mask, forward and backward, all three with gradients.

    `small` is a side to check the twin on in place of this one.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, 3, side, side), (batch, 3, side, side), (batch, 1, side, side)]
    images = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]

    def work(loss: Loss) -> Results:
        value = loss(*images)
        return value.detach(), *torch.autograd.grad(value, images)

    return Case(
        name=f"{name}, forward + backward",
        size=f"{batch}x3x{side}x{side}",
        ours=lambda: work(ours),
        twin=None if small else lambda: work(twin),
        released=(lambda: work(released)) if released and not small else None,
        tensors=(*images, *images),
        reduced=loss_case(name, ours, twin, 1, small, device, released=released) if small else None,
        axis=axis,
        amount=amount,
    )
