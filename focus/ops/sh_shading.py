"""Vertex colours under spherical-harmonics light."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _check, _native


def _forward(normals: torch.Tensor, albedo: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    colors = torch.empty_like(normals, memory_format=torch.contiguous_format)
    _native.call("sh_shading", normals.contiguous(), albedo.contiguous(), coefficients.contiguous(), colors)
    return colors


def _forward_fake(normals: torch.Tensor, albedo: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(normals, memory_format=torch.contiguous_format)


def _backward_kernel(
    normals: torch.Tensor,
    albedo: torch.Tensor,
    coefficients: torch.Tensor,
    grad_colors: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    normals = normals.contiguous()
    batch, vertex_count, _ = normals.shape
    grads = [
        _native.empty_unless(need, *t.shape, like=normals)
        for need, t in zip(needs, (normals, albedo, coefficients), strict=True)
    ]
    chunks = -(-vertex_count // _native.module.SH_CHUNK)
    partial = _native.empty_unless(needs[2], batch, chunks, 3, 9, like=normals)
    _native.call(
        "sh_shading_backward",
        normals,
        albedo.contiguous(),
        coefficients.contiguous(),
        grad_colors.contiguous(),
        grads[0],
        grads[1],
        partial,
        grads[2],
    )
    first, second, third = (normals.new_empty(0) if grad is None else grad for grad in grads)
    return first, second, third


def _backward_fake(
    normals: torch.Tensor,
    albedo: torch.Tensor,
    coefficients: torch.Tensor,
    grad_colors: torch.Tensor,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first, second, third = (
        normals.new_empty(t.shape if need else (0,))
        for need, t in zip(needs, (normals, albedo, coefficients), strict=True)
    )
    return first, second, third


_sh_shading_backward = _native.define(
    "sh_shading_backward(Tensor normals, Tensor albedo, Tensor coefficients, Tensor grad_colors, bool[] needs) "
    "-> (Tensor, Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _tangent_kernel(
    normals: torch.Tensor,
    albedo: torch.Tensor,
    coefficients: torch.Tensor,
    normals_tangent: torch.Tensor | None,
    albedo_tangent: torch.Tensor | None,
    coefficients_tangent: torch.Tensor | None,
) -> torch.Tensor:
    colors_tangent = torch.empty_like(normals, memory_format=torch.contiguous_format)
    tangents = (normals_tangent, albedo_tangent, coefficients_tangent)
    _native.call(
        "sh_shading_tangent",
        normals.contiguous(),
        albedo.contiguous(),
        coefficients.contiguous(),
        *(None if tangent is None else tangent.contiguous() for tangent in tangents),
        colors_tangent,
    )
    return colors_tangent


def _tangent_fake(normals: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
    return torch.empty_like(normals, memory_format=torch.contiguous_format)


_sh_shading_tangent = _native.define(
    "sh_shading_tangent(Tensor normals, Tensor albedo, Tensor coefficients, Tensor? normals_tangent, "
    "Tensor? albedo_tangent, Tensor? coefficients_tangent) -> Tensor",
    _tangent_kernel,
    _tangent_fake,
)


def _tangent(
    inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor, tangents: tuple[torch.Tensor | None, ...]
) -> torch.Tensor:
    colors: torch.Tensor = _sh_shading_tangent(*inputs, *tangents)
    return colors


def _setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_colors: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:3])
    grads = _sh_shading_backward(*ctx.saved_tensors, grad_colors, needs)
    return tuple(grad if need else None for need, grad in zip(needs, grads, strict=True))


_sh_shading = _native.define(
    "sh_shading(Tensor normals, Tensor albedo, Tensor coefficients) -> Tensor",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def sh_shading(normals: torch.Tensor, albedo: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Colours of a diffuse surface under distant light, ``albedo * sum_i coefficients[i] * Y_i(normal)``.

    The light is nine real spherical harmonics per colour (l = 0, 1, 2 and m = -l .. l in this order, Condon-Shortley
    signs), evaluated as polynomials of the normal (Ramamoorthi and Hanrahan, SIGGRAPH 2001, Eq. 3 for the functions).

    Args:
        normals: `[B, V, 3]`, unit length, camera space. float32; float64 on the CPU; narrower types are widened to
            float32.
        albedo: `[B, V, 3]`, RGB, usually in [0, 1].
        coefficients: `[B, 3, 9]`, for each colour the nine coefficients.

    Returns:
        `[B, V, 3]`, RGB, not clamped. Differentiable in all three.

    >>> towards_camera, red = torch.tensor([[[0.0, 0.0, -1.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    >>> light = torch.zeros(1, 3, 9)
    >>> light[:, :, 0] = 2.0 * torch.pi**0.5  # as strong as the albedo, from everywhere
    >>> [round(value, 4) for value in ops.sh_shading(towards_camera, red, light)[0, 0].tolist()]
    [1.0, 0.0, 0.0]

    Raises:
        TypeError, ValueError: wrong type, shape or device, named.
    """
    batch, vertex_count, _ = _check.floating("sh_shading", "normals", normals, ("B", "V", 3)).shape
    _check.floating("sh_shading", "albedo", albedo, (batch, vertex_count, 3))
    _check.floating("sh_shading", "coefficients", coefficients, (batch, 3, 9))
    normals, albedo, coefficients = _native.widen(normals), _native.widen(albedo), _native.widen(coefficients)
    _check.same_device_and_dtype("sh_shading", normals=normals, albedo=albedo, coefficients=coefficients)
    colors: torch.Tensor = _sh_shading(normals, albedo, coefficients)
    return colors
