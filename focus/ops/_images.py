"""What the losses on images have in common: their checks, and the bookkeeping of their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from focus.ops import _check, _native


def checked(
    op: str,
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    mask_is_optional: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The arguments as the kernels take them: one dtype and device, narrow types widened, the mask as `[B, 1, H, W]`.

    Raises:
        TypeError, ValueError: wrong type, shape or device, named.
    """
    batch, channels, height, width = _check.floating(op, "target", target, ("B", "C", "H", "W")).shape
    if channels == 0:
        raise ValueError(f"focus.ops.{op}: target expected at least one channel, got shape {list(target.shape)}")
    _check.floating(op, "reconstruction", reconstruction, (batch, channels, height, width))
    if mask is not None or not mask_is_optional:
        if isinstance(mask, torch.Tensor) and mask.dim() == 3:
            mask = mask.unsqueeze(1)
        mask = _native.widen(_check.floating(op, "mask", mask, (batch, 1, height, width)))
    target, reconstruction = _native.widen(target), _native.widen(reconstruction)
    _check.same_device_and_dtype(op, target=target, reconstruction=reconstruction, mask=mask)
    return target, reconstruction, mask


def empty_gradients(
    needs: Sequence[bool], target: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Memory for the gradients of target, reconstruction and mask; no elements where one is not needed."""
    nothing = (0,)
    sizes, mask_sizes = target.shape, nothing if mask is None else mask.shape
    return (
        target.new_empty(*(sizes if needs[0] else nothing)),
        target.new_empty(*(sizes if needs[1] else nothing)),
        target.new_empty(*(mask_sizes if needs[2] else nothing)),
    )


def needed(needs: Sequence[bool], gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """Each gradient, or None where it is not needed."""
    return tuple([gradient if need else None for need, gradient in zip(needs, gradients, strict=True)])


def partial_sums(image: torch.Tensor, *leading: int) -> torch.Tensor | None:
    """What only CUDA kernels need: memory, ``[*leading, B, chunks]``, for a sum over each chunk of pixels of each image
    of `[B, C, H, W]`."""
    if not _native.uses_cuda_kernels(image):
        return None
    batch, _, height, width = image.shape
    chunks = -(-height * width // _native.module.PIXEL_CHUNK)
    return image.new_empty(*leading, batch, chunks, dtype=torch.float64)
