"""A likelihood of the image under the reconstruction that lets outliers go."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _check, _images, _native


def _forward(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor, sigma: float, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor]:
    loss, inlier = _forward_fake(target, reconstruction, mask, sigma, cutoff)
    images = target.contiguous(), reconstruction.contiguous(), mask.contiguous()
    _native.call("outlier_robust", *images, sigma, cutoff, loss, inlier, _images.partial_sums(target))
    return loss, inlier


def _forward_fake(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor, sigma: float, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return target.new_empty(()), mask.new_empty(mask.shape)


def _backward_kernel(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor,
    sigma: float,
    cutoff: float,
    grad_loss: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    gradients = _images.empty_gradients(needs, target, mask)
    images = target.contiguous(), reconstruction.contiguous(), mask.contiguous()
    _native.call("outlier_robust_backward", *images, sigma, cutoff, grad_loss, *_images.needed(needs, gradients))
    return gradients


def _backward_fake(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor,
    sigma: float,
    cutoff: float,
    grad_loss: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _images.empty_gradients(needs, target, mask)


_outlier_robust_backward = _native.define(
    "outlier_robust_backward(Tensor target, Tensor reconstruction, Tensor mask, float sigma, float cutoff, "
    "Tensor grad_loss, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *images, ctx.sigma, ctx.cutoff = inputs
    ctx.save_for_backward(*images)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:3])
    if grad_loss is None:
        return (None,) * 5
    gradients = _outlier_robust_backward(*ctx.saved_tensors, ctx.sigma, ctx.cutoff, grad_loss, needs)
    return *_images.needed(needs, gradients), None, None


@_native.loss_tangent
def _tangent(inputs: tuple[Any, ...], outputs: Any, needs: list[bool]) -> tuple[torch.Tensor, ...]:
    gradients: tuple[torch.Tensor, ...] = _outlier_robust_backward(*inputs, torch.ones_like(outputs[0]), needs)
    return gradients


_outlier_robust = _native.define(
    "outlier_robust(Tensor target, Tensor reconstruction, Tensor mask, float sigma, float cutoff) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def outlier_robust_loss(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor,
    *,
    sigma: float = 0.043,
    cutoff: float = 3.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of the pixels that the reconstruction explains, and the mask of those pixels.

    A pixel is of the face with ``log p(x) = -|T - R|^2 / (2 sigma^2) - C/2 log(2 pi) - C log(sigma)``, and an outlier
    where a background with the likelihood of `cutoff` standard deviations explains it as well:
    ``inlier = m [|T - R| < cutoff sigma]``, ``loss = -mean(inlier * log p)`` over all B * H * W pixels (Schoenborn et
    al., IJCV 2017; the initialisation of Li et al., CVPR 2023, with these constants).

    Args:
        target: T, `[B, C, H, W]`, C >= 1. float32; float64 on the CPU; narrower types are widened to float32.
        reconstruction: R, as `target`.
        mask: m, `[B, 1, H, W]` or `[B, H, W]`, usually in [0, 1]: where there is a reconstruction.
        sigma: standard deviation of each colour, > 0.
        cutoff: in standard deviations, > 0.

    Returns:
        loss: a scalar, 0 where there is no pixel. Differentiable in all three; the selection in brackets is a constant.
            The sum is taken in two fixed stages: the same bits on every run and for every thread count. NaN or an
            infinite value makes it NaN.
        inlier: `[B, 1, H, W]`, not differentiable.

    >>> target = torch.tensor([0.0, 0.0, 0.9]).view(1, 1, 1, 3)
    >>> loss, inlier = ops.outlier_robust_loss(target, torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, 3), sigma=0.1)
    >>> inlier.flatten().tolist()
    [1.0, 1.0, 0.0]

    Raises:
        TypeError, ValueError: wrong type, shape, device, sigma or cutoff, named.
    """
    op = "outlier_robust_loss"
    sigma, cutoff = _check.positive(op, "sigma", sigma), _check.positive(op, "cutoff", cutoff)
    _check.positive(op, "cutoff * sigma", cutoff * sigma)
    target, reconstruction, given_mask = _images.checked(op, target, reconstruction, mask)
    loss, inlier = _outlier_robust(target, reconstruction, given_mask, sigma, cutoff)
    return loss, inlier
