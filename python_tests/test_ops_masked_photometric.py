"""The masked mean of colour distances, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focus import ops
from focus.ops import reference


def _two_pixels(device: torch.device, *mask: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Differences (3, 4, 0) and (0, 0, 2): distances 5 and 2."""
    target = torch.tensor([[[[3.0, 1.0]], [[5.0, 1.0]], [[1.0, 3.0]]]], device=device, requires_grad=True)
    reconstruction = torch.tensor([[[[0.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]]], device=device, requires_grad=True)
    return target, reconstruction, torch.tensor([[[mask]]], device=device, requires_grad=True)


def test_value_and_gradients(kernel_device: torch.device) -> None:
    """(0.5 * 5 + 2 * 2) / 2.5 = 2.6; the mask's gradient is (distance - 2.6) / 2.5."""
    images = _two_pixels(kernel_device, 0.5, 2.0)
    loss = ops.masked_photometric_loss(*images)
    assert loss.item() == pytest.approx(2.6)
    target, reconstruction, mask = torch.autograd.grad(loss, images)
    expected = torch.tensor([[[[0.12, 0.0]], [[0.16, 0.0]], [[0.0, 0.8]]]], device=kernel_device)
    torch.testing.assert_close(target, expected)
    assert torch.equal(reconstruction, -target)
    torch.testing.assert_close(mask, torch.tensor([[[[0.96, -0.24]]]], device=kernel_device))


def test_the_denominator_is_at_least_one(kernel_device: torch.device) -> None:
    images = _two_pixels(kernel_device, 0.25, 0.5)
    loss = ops.masked_photometric_loss(*images)
    assert loss.item() == 2.25
    assert torch.autograd.grad(loss, images)[2].tolist() == [[[[5.0, 2.0]]]]


def test_the_denominator_moves_from_one_on(kernel_device: torch.device) -> None:
    """At exactly 1 the gradient is that of larger sums, as torch.clamp has it."""
    images = _two_pixels(kernel_device, 0.5, 0.5)
    for module in (ops, reference):
        loss = module.masked_photometric_loss(*images)
        assert loss.item() == 3.5
        assert torch.autograd.grad(loss, images)[2].tolist() == [[[[1.5, -1.5]]]]


def test_nothing_to_see_under_an_empty_mask(kernel_device: torch.device) -> None:
    images = _two_pixels(kernel_device, 0.0, 0.0)
    loss = ops.masked_photometric_loss(*images)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, images))


def test_equal_images_have_no_gradient(kernel_device: torch.device) -> None:
    target = torch.rand(2, 3, 4, 5, device=kernel_device, requires_grad=True)
    reconstruction = target.detach().clone().requires_grad_()
    mask = torch.rand(2, 1, 4, 5, device=kernel_device, requires_grad=True)
    loss = ops.masked_photometric_loss(target, reconstruction, mask)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (target, reconstruction, mask)))


def test_a_negative_mask_counts_by_its_size(kernel_device: torch.device) -> None:
    """|m| in the distance; m in the denominator, which is 1 here."""
    images = _two_pixels(kernel_device, -0.5, 0.5)
    for module in (ops, reference):
        loss = module.masked_photometric_loss(*images)
        assert loss.item() == 3.5
        assert torch.autograd.grad(loss, images)[2].tolist() == [[[[-5.0, 2.0]]]]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_nan_makes_the_loss_nan_even_under_a_zero_mask(position: int, kernel_device: torch.device) -> None:
    images = [image.detach() for image in _two_pixels(kernel_device, 0.0, 1.0)]
    images[position][0, 0, 0, 0] = math.nan
    for image in images:
        image.requires_grad_()
    loss = ops.masked_photometric_loss(*images)
    assert loss.isnan()
    assert reference.masked_photometric_loss(*images).isnan()
    assert any(gradient.isnan().any() for gradient in torch.autograd.grad(loss, images))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 60)),
    seed=st.integers(0, 2**31),
)
def test_properties(shape: tuple[int, int, int, int], seed: int) -> None:
    """A mean: of equal distances that distance, however masked, and as large for images put side by side."""
    generator = torch.Generator().manual_seed(seed)
    target, reconstruction = (torch.rand(shape, generator=generator, dtype=torch.double) for _ in range(2))
    mask = torch.rand(shape[0], 1, *shape[2:], generator=generator, dtype=torch.double) + 1
    loss = ops.masked_photometric_loss(target, reconstruction, mask)
    torch.testing.assert_close(loss, reference.masked_photometric_loss(target, reconstruction, mask))
    torch.testing.assert_close(loss, ops.masked_photometric_loss(reconstruction, target, mask))
    torch.testing.assert_close(loss, ops.masked_photometric_loss(target, reconstruction, 3 * mask))
    doubled = (torch.cat([image, image]) for image in (target, reconstruction, mask))
    torch.testing.assert_close(loss, ops.masked_photometric_loss(*doubled))
    shifted = ops.masked_photometric_loss(target, target + 0.25, mask)
    assert shifted.item() == pytest.approx(0.25 * math.sqrt(shape[1]))
