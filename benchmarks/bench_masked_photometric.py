"""The masked photometric loss."""

from __future__ import annotations

from collections.abc import Iterator

import _harness
import torch

from focus import ops


def cases(device: torch.device, quick: bool) -> Iterator[_harness.Case]:
    name = "masked_photometric_loss"
    for batch in (1, 12):
        yield _harness.loss_case(
            name, ops.masked_photometric_loss, ops.reference.masked_photometric_loss, batch, quick, device
        )


if __name__ == "__main__":
    _harness.main([cases])
