"""The distance to the nearest colour in a window, drawn by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focus import ops
from focus.ops import reference

raw = torch.ops.focus


def _grey(rows: list[list[float]], device: torch.device) -> torch.Tensor:
    """[1, 1, H, W]"""
    return torch.tensor([[rows]], device=device, requires_grad=True)


def test_a_row_of_three(kernel_device: torch.device) -> None:
    target, reconstruction = _grey([[0.0, 0.5, 1.0]], kernel_device), _grey([[0.375, 0.0, 0.875]], kernel_device)
    distance = ops.neighbor_min(target, reconstruction)
    assert distance.tolist() == [[[0.0, 0.125, 0.125]]]
    distance.sum().backward()
    assert target.grad is not None
    assert reconstruction.grad is not None
    assert target.grad.tolist() == [[[[0.0, 1.0, 1.0]]]]
    assert reconstruction.grad.tolist() == [[[[-1.0, 0.0, -1.0]]]]


def test_colours_are_compared_by_their_euclidean_distance(kernel_device: torch.device) -> None:
    target = torch.tensor([3.0, 4.0, 12.0], device=kernel_device).view(1, 3, 1, 1).requires_grad_()
    reconstruction = torch.zeros_like(target)
    assert ops.neighbor_min(target, reconstruction).item() == 13
    assert ops.neighbor_min_loss(target, reconstruction).item() == 169
    (gradient,) = torch.autograd.grad(ops.neighbor_min(target, reconstruction).sum(), target)
    torch.testing.assert_close(gradient, target.detach() / 13)
    (gradient,) = torch.autograd.grad(ops.neighbor_min_loss(target, reconstruction), target)
    torch.testing.assert_close(gradient, 2 * target.detach())


def test_ties_go_to_the_first_in_row_major_order(kernel_device: torch.device) -> None:
    """All distances are 1, so that each pixel pulls at the top left one of its window: the gradient counts them."""
    target = torch.ones(1, 1, 3, 3, device=kernel_device)
    reconstruction = torch.zeros(1, 1, 3, 3, device=kernel_device, requires_grad=True)
    ops.neighbor_min(target, reconstruction).sum().backward()
    assert reconstruction.grad is not None
    assert (-reconstruction.grad).tolist() == [[[[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]]
    _, argmin = raw.neighbor_min(target, reconstruction.detach(), None, 3)
    assert argmin.tolist() == [[[4, 3, 3], [1, 0, 0], [1, 0, 0]]]


def test_the_window_ends_at_the_border(kernel_device: torch.device) -> None:
    """What pads an image with zeros finds a black neighbour outside."""
    target = torch.zeros(1, 3, 4, 6, device=kernel_device)
    for window in (1, 3, 5, 15):
        distance = ops.neighbor_min(target, torch.full_like(target, 2.0), window=window)
        assert torch.equal(distance, torch.full_like(distance, math.sqrt(12)))


@pytest.mark.parametrize("window", [1, 3, 5, 7])
def test_the_window_reaches_exactly_its_radius(window: int, kernel_device: torch.device) -> None:
    target = torch.zeros(1, 1, 9, 9, device=kernel_device)
    reconstruction = torch.ones(1, 1, 9, 9, device=kernel_device)
    reconstruction[0, 0, 5, 4] = 0
    y, x = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    reaches = torch.maximum((y - 5).abs(), (x - 4).abs()) <= window // 2
    assert torch.equal(ops.neighbor_min(target, reconstruction, window=window)[0].cpu(), (~reaches).float())


def test_the_mask_acts_on_both_images_where_each_is_read(kernel_device: torch.device) -> None:
    """m T = (0.5, 1), m R = (0.25, 0.25): both pixels take the first."""
    target, reconstruction = _grey([[1.0, 1.0]], kernel_device), _grey([[0.5, 0.25]], kernel_device)
    mask = _grey([[0.5, 1.0]], kernel_device)
    distance = ops.neighbor_min(target, reconstruction, mask)
    assert distance.tolist() == [[[0.25, 0.75]]]
    gradients = torch.autograd.grad(distance.sum(), (target, reconstruction, mask))
    assert [gradient.flatten().tolist() for gradient in gradients] == [[0.5, 1.0], [-1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("power", [1, 2])
def test_equal_images_have_no_distance_and_no_gradient(power: int, kernel_device: torch.device) -> None:
    """Under a mask of thirds too, whose products are rounded: a contracted multiply-add would leave that rounding."""
    target = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).to(kernel_device).requires_grad_()
    reconstruction = target.detach().clone().requires_grad_()
    mask = torch.full((2, 1, 9, 8), 1 / 3, device=kernel_device, requires_grad=True)
    loss = ops.neighbor_min_loss(target, reconstruction, mask, power=power)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (target, reconstruction, mask)))


def test_reductions_of_the_loss(kernel_device: torch.device) -> None:
    target = torch.zeros(2, 1, 3, 5, device=kernel_device)
    reconstruction = torch.full_like(target, 0.5)
    values = {
        (power, reduction): ops.neighbor_min_loss(target, reconstruction, power=power, reduction=reduction).item()
        for power, reduction in itertools.product((1, 2), ("mean", "sum"))
    }
    assert values == {(1, "mean"): 0.5, (1, "sum"): 15.0, (2, "mean"): 0.25, (2, "sum"): 7.5}


def test_nan_spreads_as_far_as_the_windows_reach(kernel_device: torch.device) -> None:
    images = [torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(i)).to(kernel_device) for i in range(2)]
    y, x = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    for position, reach in ((0, 0), (1, 1)):
        damaged = [image.clone() for image in images]
        damaged[position][0, 1, 4, 2] = math.nan
        expected = torch.maximum((y - 4).abs(), (x - 2).abs()) <= reach
        assert torch.equal(ops.neighbor_min(*damaged)[0].isnan().cpu(), expected)
        assert torch.equal(reference.neighbor_min(*damaged)[0].isnan().cpu(), expected)
        leaves = [image.requires_grad_() for image in damaged]
        loss = ops.neighbor_min_loss(*leaves, power=1)
        assert loss.isnan()
        gradients = torch.autograd.grad(loss, leaves)
        assert not any(g[..., x > 4].isnan().any() for g in gradients)
        assert (raw.neighbor_min(*(image.detach() for image in damaged), None, 3)[1] < 9).all()


def test_infinite_values(kernel_device: torch.device) -> None:
    """One that others can be preferred to is left out; where all are infinite, the pixel itself is taken."""
    target = torch.zeros(1, 1, 3, 4, device=kernel_device)
    reconstruction = torch.ones_like(target)
    reconstruction[0, 0, 1, 1] = math.inf
    assert torch.equal(ops.neighbor_min(target, reconstruction), torch.ones(1, 3, 4, device=kernel_device))
    distance, argmin = raw.neighbor_min(target, torch.full_like(target, -math.inf), None, 3)
    assert distance.isinf().all()
    assert (argmin == 4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("window", [1, 3, 5, 7])
@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("width", [13, 21, 48])
def test_vector_code_keeps_every_bit_round_odd_values(
    dtype: torch.dtype, window: int, channels: int, width: int, every_vector_code: list[Callable[[], None]]
) -> None:
    """Rows with NaN and infinite values take another path than those without, and so do rows shorter than registers."""
    generator = torch.Generator().manual_seed(window)
    images = [torch.rand(1, c, 23, width, generator=generator, dtype=dtype) for c in (channels, channels, 1)]
    images[0][0, 0, 3, 4], images[0][0, 1, 9, width - 1], images[1][0, 0, 9, 0] = math.nan, math.inf, -math.inf
    images[1][0, 1, 15, 7], images[2][0, 0, 20, 12] = math.nan, math.inf
    results = []
    for choose in every_vector_code:
        choose()
        distance, argmin = raw.neighbor_min(*images, window)
        leaves = [image.clone().requires_grad_() for image in images]
        gradients = torch.autograd.grad(ops.neighbor_min(*leaves, window=window).sum(), leaves)
        results.append((distance, argmin, *gradients))
        torch.testing.assert_close(distance, reference.neighbor_min(*images, window=window), equal_nan=True)
    for first, *others in zip(*results, strict=True):
        for other in others:
            assert torch.equal(first.nan_to_num(7), other.nan_to_num(7))
            assert torch.equal(first.isnan(), other.isnan())


@pytest.mark.parametrize("shape", [(1, 2**40, 0, 8), (1, 2**40, 8, 0), (0, 3, 2**40, 8)], ids=str)
def test_images_without_pixels_take_no_memory(shape: tuple[int, ...]) -> None:
    images = [torch.zeros(s).requires_grad_() for s in (shape, shape, (shape[0], 1, *shape[2:]))]
    loss = ops.neighbor_min_loss(*images)
    assert loss.item() == 0
    gradients = torch.autograd.grad(loss, images)
    assert [gradient.shape for gradient in gradients] == [image.shape for image in images]


def test_an_argmin_from_elsewhere_leads_nowhere_outside(kernel_device: torch.device) -> None:
    target, reconstruction = torch.rand(2, 1, 3, 5, 6, device=kernel_device)
    mask, grad = torch.rand(1, 1, 5, 6, device=kernel_device), torch.ones(1, 5, 6, device=kernel_device)
    for value in (0, 8, 9, 255):
        argmin = torch.full((1, 5, 6), value, dtype=torch.uint8, device=kernel_device)
        gradients = raw.neighbor_min_backward(target, reconstruction, mask, 3, 1, False, argmin, grad, [True] * 3)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("op", [ops.neighbor_min, ops.neighbor_min_loss])
@pytest.mark.parametrize("window", [0, 2, -3, 16, 17, 3.0])
def test_wrong_windows_are_refused(op: ops.neighbor_min, window: int) -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match=rf"window expected one of 1, 3, .*, 15, got {window}"):
        op(image, image, window=window)


def test_wrong_powers_and_reductions_are_refused() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="power expected one of 1, 2, got 3"):
        ops.neighbor_min_loss(image, image, power=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"power expected one of 1, 2, got 2\.0"):
        ops.neighbor_min_loss(image, image, power=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction expected one of mean, sum, got 'none'"):
        ops.neighbor_min_loss(image, image, reduction="none")  # type: ignore[arg-type]


@st.composite
def _random_images(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of few values, so that ties and distances of 0 are common."""
    batch, channels, height, width = (draw(st.integers(1, most)) for most in (2, 4, 12, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = draw(st.sampled_from([2, 5, 1000]))
    shapes = ((batch, channels, height, width),) * 2 + ((batch, 1, height, width),)
    first, second, third = (torch.randint(values, s, generator=generator).double() / values for s in shapes)
    return first, second, third


@settings(max_examples=40, deadline=None, derandomize=True)
@given(images=_random_images(), window=st.sampled_from([1, 3, 5, 9]))
def test_properties(images: tuple[torch.Tensor, torch.Tensor, torch.Tensor], window: int) -> None:
    target, reconstruction, mask = images
    pointwise = (mask * (target - reconstruction)).square().sum(1).sqrt()
    distance = ops.neighbor_min(target, reconstruction, mask, window=window)
    torch.testing.assert_close(ops.neighbor_min(target, reconstruction, mask, window=1), pointwise)
    assert (distance <= pointwise + 1e-12).all()
    assert (ops.neighbor_min(target, reconstruction, mask, window=window + 2) <= distance).all()
    flipped = ops.neighbor_min(target.flip(3), reconstruction.flip(3), mask.flip(3), window=window)
    assert torch.equal(flipped.flip(2), distance)
    torch.testing.assert_close(distance, reference.neighbor_min(target, reconstruction, mask, window=window))
    loss = ops.neighbor_min_loss(target, reconstruction, mask, window=window, reduction="sum")
    torch.testing.assert_close(loss, distance.square().sum())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(1, 4), (3, 4), (9, 36)], ids=str)
def test_rows_that_hold_whole_groups_of_four(size: tuple[int, int], masked: bool, kernel_device: torch.device) -> None:
    """Colours of few levels, so that ties are frequent and the first in the window has to win."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.randint(0, 3, (2, c, *size), generator=generator).float().to(kernel_device) for c in (3, 3, 1)]
    inputs = [image.requires_grad_() for image in images[: 3 if masked else 2]]
    distances = [module.neighbor_min(*inputs) for module in (ops, reference)]
    assert torch.equal(*distances)
    weights = torch.rand(distances[0].shape, generator=generator).to(kernel_device)
    gradients = [torch.autograd.grad(distance, inputs, weights) for distance in distances]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)
