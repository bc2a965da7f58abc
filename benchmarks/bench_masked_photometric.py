"""The masked photometric loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from _harness import Case
from _images import loss_case

from focus import ops


def released(target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The released code's way: `torch.norm` over the channels."""
    return torch.norm(mask * (target - reconstruction), 2, 1).sum() / mask.sum().clamp(min=1)


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    for batch in (1, 12):
        yield loss_case(
            "masked_photometric_loss",
            ops.masked_photometric_loss,
            ops.reference.masked_photometric_loss,
            batch,
            16 if quick else 224,
            device,
            released=released,
        )
