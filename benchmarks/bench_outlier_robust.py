"""The outlier-robust loss, with a sigma at which about half of the random pixels are inliers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import _harness
import torch

from focus import ops


def _loss(module: ModuleType) -> Callable[..., torch.Tensor]:
    def loss(*images: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = module.outlier_robust_loss(*images, sigma=0.25)[0]
        return value

    return loss


def cases(device: torch.device, quick: bool) -> Iterator[_harness.Case]:
    for batch in (1, 12):
        yield _harness.loss_case("outlier_robust_loss", _loss(ops), _loss(ops.reference), batch, quick, device)


if __name__ == "__main__":
    _harness.main([cases])
