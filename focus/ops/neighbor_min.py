"""How well the reconstruction explains a pixel: the distance to the nearest colour in a window, and its loss."""

from __future__ import annotations

from typing import Any, Literal

import torch

from focus.ops import _check, _images, _native

_WINDOWS = range(1, 16, 2)


def _forward(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    distance, argmin = _forward_fake(target, reconstruction, mask, window)
    images = target.contiguous(), reconstruction.contiguous(), None if mask is None else mask.contiguous()
    _native.call("neighbor_min", *images, window, 1, False, argmin, distance, None, None)
    return distance, argmin


def _forward_fake(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, _, height, width = target.shape
    distance = target.new_empty(batch, height, width)
    return distance, torch.empty_like(distance, dtype=torch.uint8)


def _loss_forward(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None, window: int, power: int, mean: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    loss, argmin = _loss_forward_fake(target, reconstruction, mask, window, power, mean)
    images = target.contiguous(), reconstruction.contiguous(), None if mask is None else mask.contiguous()
    _native.call("neighbor_min", *images, window, power, mean, argmin, None, loss, _partial_sums(loss, argmin))
    return loss, argmin


def _partial_sums(loss: torch.Tensor, argmin: torch.Tensor) -> torch.Tensor | None:
    """What only CUDA kernels need: memory for the sum over each tile."""
    if not _native.uses_cuda_kernels(loss):
        return None
    batch, height, width = argmin.shape
    tile_height, tile_width = _native.module.NEIGHBOR_TILE
    return loss.new_empty(batch, -(-height // tile_height), -(-width // tile_width), dtype=torch.float64)


def _loss_forward_fake(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None, window: int, power: int, mean: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, _, height, width = target.shape
    return target.new_empty(()), target.new_empty(batch, height, width, dtype=torch.uint8)


def _backward_kernel(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor | None,
    window: int,
    power: int,
    mean: bool,
    argmin: torch.Tensor,
    grad: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    gradients = _images.empty_gradients(needs, target, mask)
    is_loss = grad.dim() == 0
    _native.call(
        "neighbor_min_backward",
        target.contiguous(),
        reconstruction.contiguous(),
        None if mask is None else mask.contiguous(),
        window,
        power,
        mean,
        argmin.contiguous(),
        None if is_loss else grad.contiguous(),
        grad if is_loss else None,
        *_images.needed(needs, gradients),
    )
    return gradients


def _backward_fake(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor | None,
    window: int,
    power: int,
    mean: bool,
    argmin: torch.Tensor,
    grad: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _images.empty_gradients(needs, target, mask)


# `grad` is of the distances, [B, H, W], or of the loss, a scalar.
_neighbor_min_backward = _native.define(
    "neighbor_min_backward(Tensor target, Tensor reconstruction, Tensor? mask, int window, int power, bool mean, "
    "Tensor argmin, Tensor grad, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    target, reconstruction, mask, ctx.window, *loss_options = inputs
    ctx.power, ctx.mean = loss_options or (1, False)
    ctx.other_inputs = 1 + len(loss_options)
    ctx.save_for_backward(target, reconstruction, mask, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    needs, others = list(ctx.needs_input_grad[:3]), (None,) * ctx.other_inputs
    if grad is None:
        return (None, None, None, *others)
    *images, argmin = ctx.saved_tensors
    gradients = _neighbor_min_backward(*images, ctx.window, ctx.power, ctx.mean, argmin, grad, needs)
    return (*_images.needed(needs, gradients), *others)


def _tangent(
    inputs: tuple[Any, ...], outputs: tuple[torch.Tensor, torch.Tensor], tangents: tuple[torch.Tensor | None, ...]
) -> tuple[torch.Tensor, None]:
    """d of |a| is a . da / |a|, with a = m(x) T(x) - m(x') R(x'), and 0 where a is 0."""
    target, reconstruction, mask, window = inputs
    argmin = outputs[1]
    batch, height, width = argmin.shape
    place, radius = argmin.long(), window // 2
    y = torch.arange(height, dtype=torch.int64, device=place.device).view(-1, 1) + place // window - radius
    x = torch.arange(width, dtype=torch.int64, device=place.device) + place % window - radius
    there = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).view(batch, 1, height * width)

    def masked(image: torch.Tensor, tangent: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """m I, and how it moves."""
        moved = torch.zeros_like(image) if tangent is None else tangent
        if mask is None:
            return image, moved
        moved = mask * moved
        return mask * image, moved if tangents[2] is None else moved + tangents[2] * image

    def nearest(image: torch.Tensor) -> torch.Tensor:
        return image.flatten(2).gather(2, there.expand(-1, image.shape[1], -1)).view_as(image)

    own, own_moved = masked(target, tangents[0])
    other, other_moved = masked(reconstruction, tangents[1])
    difference = own - nearest(other)
    along, squared = (difference * (own_moved - nearest(other_moved))).sum(dim=1), difference.square().sum(dim=1)
    zero = squared == 0
    return torch.where(zero, 0, along / torch.where(zero, 1, squared).sqrt()), None


@_native.loss_tangent
def _loss_tangent(inputs: tuple[Any, ...], outputs: Any, needs: list[bool]) -> tuple[torch.Tensor, ...]:
    gradients: tuple[torch.Tensor, ...] = _neighbor_min_backward(
        *inputs, outputs[1], torch.ones_like(outputs[0]), needs
    )
    return gradients


_neighbor_min = _native.define(
    "neighbor_min(Tensor target, Tensor reconstruction, Tensor? mask, int window) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)

_neighbor_min_loss = _native.define(
    "neighbor_min_loss(Tensor target, Tensor reconstruction, Tensor? mask, int window, int power, bool mean) "
    "-> (Tensor, Tensor)",
    _loss_forward,
    _loss_forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_loss_tangent,
)


def neighbor_min(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None = None, *, window: int = 3
) -> torch.Tensor:
    """Distance of each target pixel to the nearest colour of the reconstruction in the window round it.

    ``d(x) = min over x' of || m(x) T(x) - m(x') R(x') ||_2``, where x' runs over the `window` x `window` pixels
    centred at x, as far as they lie in the image (Li et al., CVPR 2023, Eq. 1, before the square and the sum).

    Args:
        target: T, `[B, C, H, W]`, C >= 1. float32; float64 on the CPU; narrower types are widened to float32.
        reconstruction: R, as `target`.
        mask: m, `[B, 1, H, W]` or `[B, H, W]`, usually in [0, 1]; None stands for ones.
        window: side of the window in pixels, odd, 1 to 15.

    Returns:
        d, `[B, H, W]`. Differentiable in all three images, through the nearest x' only: of several, the first in
        row-major order. At a distance of 0 the subgradient is 0. A NaN anywhere in the window makes d(x) NaN.

    >>> reconstruction = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    >>> target = torch.tensor([0.5, 0.5, 0.25]).view(1, 1, 1, 3)
    >>> ops.neighbor_min(target, reconstruction).tolist()
    [[[0.0, 0.0, 0.25]]]

    Raises:
        TypeError, ValueError: wrong type, shape, device or window, named.
    """
    window = _check.choice("neighbor_min", "window", window, _WINDOWS)
    images = _images.checked("neighbor_min", target, reconstruction, mask, mask_is_optional=True)
    distance: torch.Tensor = _neighbor_min(*images, window)[0]
    return distance


def neighbor_min_loss(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    window: int = 3,
    power: Literal[1, 2] = 2,
    reduction: Literal["mean", "sum"] = "mean",
) -> torch.Tensor:
    """The distances of `neighbor_min`, or their squares, summed or averaged over the batch without a map of them.

    Eq. 1 of Li et al., CVPR 2023 is ``power=2, reduction="sum"``; the weights of its segmentation loss were tuned with
    ``power=1, reduction="mean"``, as its authors' code has it.

    Args:
        target, reconstruction, mask, window: as in `neighbor_min`.
        power: 1 sums distances, 2 their squares.
        reduction: "sum", or "mean" over the B * H * W pixels, masked ones included.

    Returns:
        A scalar, 0 where there is no pixel. Gradients as in `neighbor_min`; those of the square are smooth at 0. The
        sum is taken in two fixed stages: the same bits on every run and for every thread count.

    >>> reconstruction = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    >>> target = torch.tensor([0.5, 0.5, 0.25]).view(1, 1, 1, 3)
    >>> ops.neighbor_min_loss(target, reconstruction, power=1, reduction="sum").item()
    0.25

    Raises:
        TypeError, ValueError: wrong type, shape, device, window, power or reduction, named.
    """
    op = "neighbor_min_loss"
    window = _check.choice(op, "window", window, _WINDOWS)
    factors = _check.choice(op, "power", power, (1, 2))
    _check.choice(op, "reduction", reduction, ("mean", "sum"))
    images = _images.checked(op, target, reconstruction, mask, mask_is_optional=True)
    loss: torch.Tensor = _neighbor_min_loss(*images, window, factors, reduction == "mean")[0]
    return loss
