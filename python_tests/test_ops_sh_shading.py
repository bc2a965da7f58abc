"""Spherical-harmonics shading."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from focus import ops
from focus.ops import _native, reference


def _basis(directions: torch.Tensor) -> torch.Tensor:
    """[N, 9]: what each coefficient adds to white at unit `directions` [N, 3], through the operator."""
    light = torch.zeros(9, 3, 9, dtype=directions.dtype, device=directions.device)
    light[torch.arange(9), :, torch.arange(9)] = 1
    normals = directions.expand(9, -1, -1)
    return ops.sh_shading(normals, torch.ones_like(normals), light)[..., 0].T


def test_bands_along_the_axes(kernel_device: torch.device) -> None:
    """Worked out from the definition: l = 0..2, m = -l..l, with the Condon-Shortley signs."""
    axes = torch.eye(3, device=kernel_device)
    a, b, c, d = (math.sqrt(n / (k * math.pi)) for n, k in ((1, 4), (3, 4), (5, 16), (15, 16)))
    expected = torch.tensor(
        [
            [a, 0, 0, -b, 0, 0, -c, 0, d],  # x
            [a, -b, 0, 0, 0, 0, -c, 0, -d],  # y
            [a, 0, b, 0, 0, 0, 2 * c, 0, 0],  # z
        ],
        device=kernel_device,
    )
    torch.testing.assert_close(_basis(axes), expected)


def test_bands_on_the_diagonals_have_their_signs(kernel_device: torch.device) -> None:
    half = math.sqrt(0.5)
    directions = torch.tensor([[half, half, 0], [0, half, half], [half, 0, half]], device=kernel_device)
    expected = math.sqrt(15 / (4 * math.pi)) / 2
    basis = _basis(directions)
    torch.testing.assert_close(basis[[0, 1, 2], [4, 5, 7]].tolist(), [expected, -expected, -expected])


def test_the_bands_are_orthonormal_on_the_sphere() -> None:
    """Integrated exactly: Gauss-Legendre in z and equal steps in the angle, for polynomials of degree four."""
    z, weight = np.polynomial.legendre.leggauss(3)
    angle = 2 * math.pi * np.arange(5) / 5
    radius = np.sqrt(1 - z**2)
    directions = np.stack(
        np.broadcast_arrays(radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle), z[:, None]), -1
    )
    area = torch.from_numpy(np.repeat(weight * 2 * math.pi / 5, 5))
    basis = _basis(torch.from_numpy(directions.reshape(-1, 3)))
    torch.testing.assert_close(basis.T @ (area[:, None] * basis), torch.eye(9, dtype=torch.double))


def test_colours_are_albedo_times_light_of_their_own_channel(kernel_device: torch.device) -> None:
    normals = torch.tensor([[[0.0, 0.0, 1.0]]], device=kernel_device)
    albedo = torch.tensor([[[0.5, 2.0, -1.0]]], device=kernel_device)
    light = torch.zeros(1, 3, 9, device=kernel_device)
    light[0, :, 0] = torch.tensor([1.0, 2.0, 3.0])
    expected = torch.tensor([0.5, 4.0, -3.0]) * 0.28209479
    torch.testing.assert_close(ops.sh_shading(normals, albedo, light)[0, 0].cpu(), expected)


@pytest.mark.parametrize("vertex_count", [0, 1, 255, 256, 257, 600])
def test_the_light_gathers_the_gradients_of_all_vertices(kernel_device: torch.device, vertex_count: int) -> None:
    """Around the sizes at which another segment or chunk of vertices begins."""
    generator = torch.Generator().manual_seed(vertex_count)
    normals, albedo, weight = (torch.rand(2, vertex_count, 3, generator=generator).to(kernel_device) for _ in range(3))
    gradients = []
    for module in (ops, reference):
        light = torch.ones(2, 3, 9, device=kernel_device, requires_grad=True)
        (module.sh_shading(normals, albedo, light) * weight).sum().backward()
        assert light.grad is not None
        gradients.append(light.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


def _colors_and_gradients(vertex_count: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """All of them, then the gradient of the normals alone, then of the light alone."""
    generator = torch.Generator().manual_seed(vertex_count)
    shapes = [(2, vertex_count, 3)] * 3 + [(2, 3, 9)]
    normals, albedo, weight, light = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    leaves = [tensor.requires_grad_() for tensor in (normals, albedo, light)]
    colors = ops.sh_shading(*leaves)
    gradients = torch.autograd.grad(colors, leaves, weight)
    alone = torch.autograd.grad(ops.sh_shading(normals, albedo.detach(), light.detach()), normals, weight)
    light_alone = torch.autograd.grad(ops.sh_shading(normals.detach(), albedo.detach(), light), light, weight)
    return (colors.detach(), *gradients, *alone, *light_alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vertex_count", [1, 31, 33, 129, 257, 1031])
def test_neither_vector_code_nor_threads_change_a_bit(
    dtype: torch.dtype, vertex_count: int, every_vector_code: list[Callable[[], None]]
) -> None:
    before, results = torch.get_num_threads(), []
    for choose in every_vector_code:
        choose()
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(_colors_and_gradients(vertex_count, dtype))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert torch.equal(results[0][1], results[0][4])
    assert torch.equal(results[0][3], results[0][5])


@pytest.mark.parametrize("vertex_count", [5, 257, 300])
def test_lanes_add_up_in_the_same_order_on_cuda(
    vertex_count: int, emulated_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lanes of the CPU hold segments of the vertices, whose sums the threads of a block make one by one."""
    expected = _colors_and_gradients(vertex_count, torch.float32)
    monkeypatch.setattr(_native, "module", emulated_module)
    actual = _colors_and_gradients(vertex_count, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"normals": None}, TypeError, "sh_shading: normals expected a torch.Tensor, got NoneType"),
        ({"normals": torch.ones(2, 5)}, ValueError, r"normals expected shape \[B, V, 3\], got \[2, 5\]"),
        ({"albedo": torch.ones(2, 4, 3)}, ValueError, r"albedo expected shape \[2, 5, 3\], got \[2, 4, 3\]"),
        ({"albedo": torch.ones(2, 5, 3).int()}, TypeError, "albedo expected a floating dtype, got torch.int32"),
        ({"albedo": torch.ones(2, 5, 3).double()}, TypeError, "albedo is torch.float64 and normals torch.float32"),
        ({"coefficients": torch.ones(2, 27)}, ValueError, r"coefficients expected shape \[2, 3, 9\], got \[2, 27\]"),
        (
            {"coefficients": torch.ones(2, 3, 9, device="meta")},
            ValueError,
            "coefficients is on meta and normals on cpu",
        ),
    ],
)
def test_errors_name_what_was_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {"normals": torch.ones(2, 5, 3), "albedo": torch.ones(2, 5, 3), "coefficients": torch.ones(2, 3, 9)}
    with pytest.raises(error, match=message):
        ops.sh_shading(**{**valid, **arguments})
