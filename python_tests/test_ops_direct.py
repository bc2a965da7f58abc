"""Calls that do without torch's dispatcher: who is called so, and that it changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from focus import ops
from focus.ops import _native

NORMALS = torch.nn.functional.normalize(torch.rand(1, 5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
LIGHT = torch.rand(1, 3, 9, generator=torch.Generator().manual_seed(1))


class _Watched(TorchDispatchMode):
    """Sees the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class _Own(torch.Tensor):
    """A tensor of somebody else's kind."""


@pytest.mark.parametrize(
    ("make", "around", "plain"),
    [
        (lambda: NORMALS, contextlib.nullcontext, True),
        (lambda: torch.nn.Parameter(NORMALS), contextlib.nullcontext, True),
        (lambda: NORMALS, torch.no_grad, True),
        (lambda: NORMALS, torch.inference_mode, True),
        (lambda: NORMALS, _Watched, False),
        (lambda: NORMALS, FakeTensorMode, False),
        (lambda: NORMALS, torch.autograd.profiler.profile, False),
        (lambda: NORMALS, forward_ad.dual_level, False),
        (lambda: NORMALS.as_subclass(_Own), contextlib.nullcontext, False),  # type: ignore[arg-type]
        (lambda: NORMALS.to("meta"), contextlib.nullcontext, False),
        (lambda: torch._neg_view(NORMALS), contextlib.nullcontext, False),
    ],
)
def test_who_is_called_without_the_dispatcher(
    make: Callable[[], torch.Tensor], around: Callable[[], AbstractContextManager[Any]], plain: bool
) -> None:
    tensor = make()
    with around():
        assert _native._look_at((tensor, 3, None)) == (plain, plain and tensor.requires_grad)


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # of torch itself, in its first jvp
def test_transforms_keep_the_dispatcher() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(_native._look_at((x,))[0])
        return x.sum()

    torch.func.vmap(look)(NORMALS)
    torch.func.grad(look)(NORMALS)
    torch.func.jvp(look, (NORMALS,), (NORMALS,))
    assert seen == [False] * 3


def test_modes_see_the_operators() -> None:
    with _Watched() as watched:
        ops.sh_shading(NORMALS, NORMALS, LIGHT)
    assert "focus.sh_shading.default" in watched.seen


def test_both_ways_have_the_same_bits() -> None:
    results = []
    for call in (ops.sh_shading, torch.ops.focus.sh_shading):
        leaves = [tensor.clone().requires_grad_() for tensor in (NORMALS, NORMALS, LIGHT)]
        colors = call(*leaves)
        assert colors.grad_fn is not None
        results.append((colors.detach(), *torch.autograd.grad(colors.square().sum(), leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_second_derivatives_are_refused_either_way() -> None:
    leaf = NORMALS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ops.sh_shading(leaf, NORMALS, LIGHT).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch itself
def test_compiled_autograd() -> None:
    gradients = []
    for compiled in (False, True):
        leaf = NORMALS.clone().requires_grad_()
        colors = ops.sh_shading(leaf, NORMALS, LIGHT)
        with torch._dynamo.config.patch(compiled_autograd=compiled):
            torch.compile(lambda colors: colors.square().sum().backward(), backend="eager")(colors)
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


class _Functions(TorchFunctionMode):
    """Another kind of mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_modes_of_functions_are_told() -> None:
    with _Functions():
        assert not _native._look_at((NORMALS,))[0]


def test_one_graph_serves_many_threads() -> None:
    """Torch runs a backward of one graph in each thread that asks for it."""
    leaf = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    loss = ops.masked_photometric_loss(leaf, torch.zeros(4, 3, 64, 64), torch.ones(4, 1, 64, 64))
    (expected,) = torch.autograd.grad(loss, leaf, retain_graph=True)

    def ask(_: int) -> bool:
        return torch.equal(torch.autograd.grad(loss, leaf, retain_graph=True)[0], expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(80)))


def test_graphs_name_the_operator() -> None:
    colors = ops.sh_shading(NORMALS.clone().requires_grad_(), NORMALS, LIGHT)
    assert colors.grad_fn is not None
    assert colors.grad_fn.name() == "sh_shadingBackward"
