"""Mean colour distance of two images over a mask."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _images, _native


def _forward(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    loss, sums = _forward_fake(target, reconstruction, mask)
    images = target.contiguous(), reconstruction.contiguous(), mask.contiguous()
    _native.call("masked_photometric", *images, loss, sums, _images.partial_sums(target, 2))
    return loss, sums


def _forward_fake(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return target.new_empty(()), target.new_empty(2)  # of which the second is saved: the loss is the caller's to change


def _backward_kernel(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor,
    sums: torch.Tensor,
    grad_loss: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    gradients = _images.empty_gradients(needs, target, mask)
    images = target.contiguous(), reconstruction.contiguous(), mask.contiguous()
    _native.call("masked_photometric_backward", *images, sums, grad_loss, *_images.needed(needs, gradients))
    return gradients


def _backward_fake(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor,
    sums: torch.Tensor,
    grad_loss: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _images.empty_gradients(needs, target, mask)


_masked_photometric_backward = _native.define(
    "masked_photometric_backward(Tensor target, Tensor reconstruction, Tensor mask, Tensor sums, "
    "Tensor grad_loss, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:3])
    if grad_loss is None:
        return (None,) * len(needs)
    return _images.needed(needs, _masked_photometric_backward(*ctx.saved_tensors, grad_loss, needs))


@_native.loss_tangent
def _tangent(inputs: tuple[Any, ...], outputs: Any, needs: list[bool]) -> tuple[torch.Tensor, ...]:
    gradients: tuple[torch.Tensor, ...] = _masked_photometric_backward(
        *inputs, outputs[1], torch.ones_like(outputs[0]), needs
    )
    return gradients


_masked_photometric = _native.define(
    "masked_photometric(Tensor target, Tensor reconstruction, Tensor mask) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def masked_photometric_loss(target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean distance of the colours under the mask, ``sum_x || m (T - R) ||_2 / max(sum_x m, 1)``, x over the batch.

    The pixel loss of Tewari et al., MoFA, ICCV 2017 with the visible-face mask of Li et al., CVPR 2023.

    Args:
        target: T, `[B, C, H, W]`, C >= 1. float32; float64 on the CPU; narrower types are widened to float32.
        reconstruction: R, as `target`.
        mask: m, `[B, 1, H, W]` or `[B, H, W]`, usually in [0, 1].

    Returns:
        A scalar, 0 where there is no pixel. Differentiable in all three, the denominator included (it is constant while
        the mask sums to less than 1). Where a distance is 0, because T = R or m = 0, its subgradient is 0. The sums are
        taken in two fixed stages: the same bits on every run and for every thread count. NaN in a pixel makes the loss
        NaN, masked or not.

    >>> target, reconstruction = torch.zeros(1, 1, 1, 4), torch.full((1, 1, 1, 4), 0.5)
    >>> mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 4)
    >>> ops.masked_photometric_loss(target, reconstruction, mask).item()
    0.5

    Raises:
        TypeError, ValueError: wrong type, shape or device, named.
    """
    target, reconstruction, given_mask = _images.checked("masked_photometric_loss", target, reconstruction, mask)
    loss: torch.Tensor = _masked_photometric(target, reconstruction, given_mask)[0]
    return loss
