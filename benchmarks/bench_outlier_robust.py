"""The outlier-robust loss, with a sigma at which about half of the random pixels are inliers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from _harness import Case
from _images import Loss, loss_case

from focus import ops


def loss_of(module: Any) -> Loss:
    def loss(*images: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = module.outlier_robust_loss(*images, sigma=0.25)[0]
        return value

    return loss


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    side = 16 if quick else 224
    for batch in (1, 12):
        yield loss_case("outlier_robust_loss", loss_of(ops), loss_of(ops.reference), batch, side, device)
