"""The neighbour minimum loss, 3x3 (the paper's) and 5x5 (the released code's)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from _harness import Case
from _images import loss_case

from focus import ops


def released(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor, *, window: int = 3
) -> torch.Tensor:
    """The released code's way: `torch.norm` over the channels for every shift, and the minimum of all of them."""
    height, width = target.shape[2:]
    margin = [window // 2] * 4
    target, moved = mask * target, torch.nn.functional.pad(mask * reconstruction, margin)
    outside = torch.nn.functional.pad(torch.zeros_like(target[:, 0]), margin, value=math.inf)
    distances = [
        torch.norm(target - moved[..., y : y + height, x : x + width], 2, 1)
        + outside[..., y : y + height, x : x + width]
        for y in range(window)
        for x in range(window)
    ]
    return torch.stack(distances).min(0).values.square().mean()


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    for window, batch in ((3, 1), (3, 12), (5, 1), (5, 12)):
        yield loss_case(
            f"neighbor_min_loss {window}x{window}",
            partial(ops.neighbor_min_loss, window=window),
            partial(ops.reference.neighbor_min_loss, window=window),
            batch,
            16 if quick else 224,
            device,
            released=partial(released, window=window),
        )
