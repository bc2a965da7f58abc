"""Operators under the transforms of torch.func and in forward mode: right, or an error, never a silent 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from focus import ops

pytestmark = [  # of torch itself
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),  # its first jvp
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),  # linearize
]

GENERATOR = torch.Generator().manual_seed(0)


def _rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=GENERATOR)


MESH = ops.Topology(torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6], [0, 2, 6]]), 7)
VERTICES = _rand(1, 7, 3) * torch.tensor([9.0, 9, 1]) + torch.tensor([0.0, 0, 5])
VALUES, UNIT, LIGHT = _rand(1, 7, 3), torch.nn.functional.normalize(_rand(1, 7, 3), dim=-1), _rand(1, 3, 9)
TARGET, IMAGE, MASK = _rand(1, 3, 10, 10), _rand(1, 3, 10, 10), _rand(1, 1, 10, 10)
FOUND = ops.rasterize(VERTICES, MESH, (10, 10))
WEIGHTS = _rand(1, 3, 10, 10)

Function = Callable[[torch.Tensor], torch.Tensor]

FUNCTIONS: dict[str, tuple[Function, torch.Tensor]] = {
    "rasterize, depth": (lambda x: (ops.rasterize(x, MESH, (10, 10)).depth * WEIGHTS[:, 0]).sum(), VERTICES),
    "rasterize, barycentric": (
        lambda x: (ops.rasterize(x, MESH, (10, 10)).barycentric * WEIGHTS[0, 0, :, :3]).sum(),
        VERTICES,
    ),
    "interpolate": (lambda x: (ops.interpolate(x, MESH, FOUND) * WEIGHTS).sum(), VALUES),
    "interpolate, barycentric": (
        lambda x: (ops.interpolate(VALUES, MESH, FOUND._replace(barycentric=x)) * WEIGHTS).sum(),
        FOUND.barycentric,
    ),
    "render": (lambda x: (ops.render(x, VALUES, MESH, (10, 10))[0] * WEIGHTS).sum(), VERTICES),
    "render, attributes": (lambda x: (ops.render(VERTICES, x, MESH, (10, 10))[0] * WEIGHTS).sum(), VALUES),
    "render, with plain faces": (lambda x: ops.render(x, VALUES, MESH.faces, (10, 10))[0].sum(), VERTICES),
    "antialias": (lambda x: (ops.antialias(x, VERTICES, MESH, FOUND.face_index) * WEIGHTS).sum(), IMAGE),
    "antialias, vertices": (lambda x: (ops.antialias(IMAGE, x, MESH, FOUND.face_index) * WEIGHTS).sum(), VERTICES),
    "vertex_normals": (lambda x: (ops.vertex_normals(x, MESH) * VALUES).sum(), VERTICES),
    "sh_shading, normals": (lambda x: ops.sh_shading(x, VALUES, LIGHT).sum(), UNIT),
    "sh_shading, light": (lambda x: ops.sh_shading(UNIT, VALUES, x).square().sum(), LIGHT),
    "neighbor_min": (lambda x: (ops.neighbor_min(TARGET, x, MASK) * WEIGHTS[:, 0]).sum(), IMAGE),
    "neighbor_min_loss": (lambda x: ops.neighbor_min_loss(TARGET, x, MASK), IMAGE),
    "masked_photometric_loss": (lambda x: ops.masked_photometric_loss(TARGET, IMAGE, x), MASK),
    "outlier_robust_loss": (lambda x: ops.outlier_robust_loss(TARGET, x, MASK, sigma=0.3)[0], IMAGE),
}

every_function = pytest.mark.parametrize("name", FUNCTIONS)


def test_every_operator_is_tried() -> None:
    operators = {name for name in ops.__all__ if name[0].islower()} - {"reference"}
    assert {name.split(",")[0] for name in FUNCTIONS} == operators


def _gradient(function: Function, point: torch.Tensor) -> torch.Tensor:
    leaf = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    return gradient


@every_function
def test_reverse_mode_of_torch_func(name: str) -> None:
    function, point = FUNCTIONS[name]
    expected = _gradient(function, point)
    assert bool((expected != 0).any())
    assert torch.equal(grad(function)(point), expected)
    assert torch.equal(vjp(function, point)[1](torch.tensor(1.0))[0], expected)
    assert torch.equal(jacrev(function)(point), expected)
    assert torch.equal(grad(lambda x: torch.func.functional_call(_Holder(function), {}, (x,)))(point), expected)


class _Holder(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@every_function
def test_vmap_has_the_bits_of_one_call_after_the_other(name: str) -> None:
    function, point = FUNCTIONS[name]
    points = torch.stack([point, point * 1.02, point * 0.98])
    values, gradients = (
        torch.stack([function(x) for x in points]),
        torch.stack([_gradient(function, x) for x in points]),
    )
    assert torch.equal(vmap(function)(points), values)
    assert torch.equal(vmap(function, in_dims=1)(points.transpose(0, 1)), values)
    assert torch.equal(vmap(grad(function))(points), gradients)
    assert torch.equal(grad(lambda x: vmap(function)(x).sum())(points), gradients)
    leaf = points.clone().requires_grad_()
    vmap(function)(leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, gradients)


@every_function
def test_autocast_changes_no_bit_of_a_gradient(name: str) -> None:
    function, point = FUNCTIONS[name]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grad(function)(point), _gradient(function, point))


def _dual(function: Function, point: torch.Tensor, direction: torch.Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(point, direction))).tangent


Way = Callable[[Function, torch.Tensor, torch.Tensor], Any]

FORWARD: dict[str, Way] = {
    "jvp": lambda f, x, t: jvp(f, (x,), (t,))[1],
    "jacfwd": lambda f, x, t: (jacfwd(f)(x) * t).sum(),
    "forward_ad": lambda f, x, t: _dual(f, x, t),
    "forward_ad of what requires gradients": lambda f, x, t: _dual(f, x.clone().requires_grad_(), t),
    "linearize": lambda f, x, t: linearize(f, x)[1](t),
    "jvp in vmap": lambda f, x, t: vmap(lambda u: jvp(f, (x,), (u,))[1])(torch.stack([t, -t]))[1].neg(),
    "vmap in jvp": lambda f, x, t: jvp(vmap(f), (torch.stack([x, x]),), (torch.stack([-t, t]),))[1][1],
    "without grad mode": lambda f, x, t: torch.no_grad()(lambda: jvp(f, (x,), (t,)))()[1],
}


def _directional(function: Function, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A direction, what the value gains in it by reverse mode, and how exact that is."""
    direction = torch.rand(point.shape, generator=torch.Generator().manual_seed(1))
    products = _gradient(function, point) * direction
    return direction, products.sum(), 1e-5 * float(products.abs().sum())


@every_function
@pytest.mark.parametrize("way", FORWARD)
def test_forward_mode_is_the_transpose_of_reverse_mode(name: str, way: str) -> None:
    function, point = FUNCTIONS[name]
    direction, expected, tolerance = _directional(function, point)
    torch.testing.assert_close(FORWARD[way](function, point, direction), expected, rtol=0, atol=tolerance)


@every_function
@pytest.mark.filterwarnings("ignore:Graph break due to unsupported builtin")  # torch 2.6 says so of kernels it runs
def test_forward_mode_in_compiled_functions(name: str) -> None:
    function, point = FUNCTIONS[name]
    direction, expected, tolerance = _directional(function, point)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: jvp(function, (x,), (direction,))[1], backend="aot_eager")
    torch.testing.assert_close(compiled(point), expected, rtol=0, atol=tolerance)


SECOND: dict[str, Callable[[Function, torch.Tensor], Any]] = {
    "jvp in jvp": lambda f, x: jvp(lambda y: jvp(f, (y,), (x,))[1], (x,), (x,))[1],
    "jvp in grad": lambda f, x: (grad(lambda y: jvp(f, (y,), (x,))[1])(x) * x).sum(),
    "grad in jvp": lambda f, x: (jvp(grad(f), (x,), (x,))[1] * x).sum(),
    "hessian": lambda f, x: (hessian(f)(x).reshape(x.numel(), -1) @ x.flatten() * x.flatten()).sum(),
}


TWICE = ("interpolate", "neighbor_min")
"""Whose tangents are made of operators that have tangents themselves."""


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.split(",")[0] not in TWICE])
@pytest.mark.parametrize("way", SECOND)
def test_second_derivatives_in_forward_mode_are_refused(name: str, way: str) -> None:
    function, point = FUNCTIONS[name]
    with pytest.raises((NotImplementedError, RuntimeError), match="first derivatives only"):
        SECOND[way](function, point)


@pytest.mark.parametrize("way", ["jvp in jvp", "jvp in grad"])
def test_second_derivatives_in_forward_mode_are_right_where_they_are_there(way: str) -> None:
    target, image, mask, weights = (tensor.double() for tensor in (TARGET, IMAGE, MASK, WEIGHTS))

    def function(x: torch.Tensor) -> torch.Tensor:
        return (ops.neighbor_min(target, x, mask) * weights[:, 0]).sum()

    step = 1e-5
    slopes = [_gradient(function, image * (1 + sign * step)) for sign in (1, -1)]
    expected = ((slopes[0] - slopes[1]) * image).sum() / (2 * step)
    torch.testing.assert_close(SECOND[way](function, image), expected, rtol=1e-6, atol=0)
    for name in ("interpolate", "interpolate, barycentric"):  # linear in the one, and in the other
        assert SECOND[way](*FUNCTIONS[name]) == 0


@every_function
def test_second_derivatives_are_refused(name: str) -> None:
    function, point = FUNCTIONS[name]
    with pytest.raises(RuntimeError, match="first derivatives only"):
        grad(lambda x: grad(function)(x).square().sum())(point)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.functional.jvp(function, point, point)


@every_function
def test_constants_among_duals_are_no_error(name: str) -> None:
    """Also in forward mode, what does not depend on a tangent is computed."""
    function, point = FUNCTIONS[name]
    expected = function(point)
    value, tangent = jvp(lambda x: function(point) + x, (torch.tensor(1.0),), (torch.tensor(2.0),))
    assert torch.equal(value, expected + 1)
    assert tangent == 2
    with forward_ad.dual_level():
        forward_ad.make_dual(point, point)
        assert torch.equal(function(point), expected)


def test_an_empty_batch_has_a_tangent() -> None:
    empty = torch.zeros(0, 3, 5, 6)
    _, tangent = jvp(lambda x: ops.neighbor_min(x, empty), (empty,), (empty,))
    assert tangent.shape == (0, 5, 6)


def test_vmap_of_no_item_has_the_sizes_of_one() -> None:
    assert vmap(lambda x: ops.vertex_normals(x, MESH))(torch.rand(0, 1, 7, 3)).shape == (0, 1, 7, 3)
    image, mask, _ = vmap(lambda x: ops.render(x, VALUES, MESH, (10, 10)))(torch.rand(0, 1, 7, 3))
    assert (image.shape, mask.shape) == ((0, 1, 3, 10, 10), (0, 1, 1, 10, 10))
