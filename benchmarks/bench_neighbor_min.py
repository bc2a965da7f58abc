"""The neighbour minimum loss, 3x3 (the paper's) and 5x5 (the released code's)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import _harness
import torch

from focus import ops


def cases(device: torch.device, quick: bool) -> Iterator[_harness.Case]:
    for window, batch in ((3, 1), (3, 12), (5, 12)):
        yield _harness.loss_case(
            f"neighbor_min_loss {window}x{window}",
            partial(ops.neighbor_min_loss, window=window),
            partial(ops.reference.neighbor_min_loss, window=window),
            batch,
            quick,
            device,
        )


if __name__ == "__main__":
    _harness.main([cases])
