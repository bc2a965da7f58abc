"""Cases of the losses on images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _harness import Case, Results

Loss = Callable[..., torch.Tensor]


PLANES = {"masked_photometric_loss": 21.0, "outlier_robust_loss": 22.0, "neighbor_min_loss": 21.5}
"""Planes of float32 that must be read or written, forward and backward: seven are read (three colours of two images and
the mask), read again for the gradients, and written. The plane of inliers is written; what is nearest, in bytes, is a
quarter, written and read."""


def loss_work(loss: Loss, batch: int, side: int, device: torch.device) -> tuple[Results, Callable[[], Results]]:
    """Target, reconstruction and mask, and what does forward and backward, all three with gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, 3, side, side), (batch, 3, side, side), (batch, 1, side, side)]
    images = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]

    def work() -> Results:
        value = loss(*images)
        return value.detach(), *torch.autograd.grad(value, images)

    return tuple(images), work


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
    work = loss_work(ours, batch, side, device)[1]
    others = {
        kind: loss_work(loss, batch, side, device)[1] for kind, loss in (("twin", twin), ("released", released)) if loss
    }
    planes = PLANES[name.split()[0]]
    return Case(
        name=f"{name}, forward + backward",
        size=f"{batch}x3x{side}x{side}",
        ours=work,
        twin=None if small else others["twin"],
        released=None if small else others.get("released"),
        moved=round(planes * 4 * batch * side * side),
        reduced=loss_case(name, ours, twin, 1, small, device, released=released) if small else None,
        axis=axis,
        amount=amount,
    )
