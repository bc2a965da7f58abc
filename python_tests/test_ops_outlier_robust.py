"""The outlier-robust likelihood, computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focus import ops
from focus.ops import reference

C = -0.5 * math.log(2 * math.pi)  # log-likelihood of no difference, one channel, sigma 1


def _four_pixels(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Differences 0, 1, 2 and 3."""
    target = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], device=device, requires_grad=True)
    reconstruction = torch.ones_like(target, requires_grad=True)
    mask = torch.tensor([[[[1.0, 0.5], [1.0, 1.0]]]], device=device, requires_grad=True)
    return target, reconstruction, mask


def test_value_and_gradients(kernel_device: torch.device) -> None:
    """At the cutoff itself, a difference of 2, a pixel is an outlier."""
    images = _four_pixels(kernel_device)
    loss, inlier = ops.outlier_robust_loss(*images, sigma=1.0, cutoff=2.0)
    assert inlier.tolist() == [[[[1.0, 0.5], [0.0, 0.0]]]]
    assert loss.item() == pytest.approx(-(C + 0.5 * (C - 0.5)) / 4)
    target, reconstruction, mask = torch.autograd.grad(loss, images)
    assert target.tolist() == [[[[0.0, 0.125], [0.0, 0.0]]]]
    assert torch.equal(reconstruction, -target)
    torch.testing.assert_close(mask, torch.tensor([[[[-C / 4, (0.5 - C) / 4], [0, 0]]]], device=kernel_device))


def test_a_perfect_reconstruction_with_the_papers_sigma(kernel_device: torch.device) -> None:
    image, mask = torch.rand(2, 3, 5, 4, device=kernel_device), torch.ones(2, 5, 4, device=kernel_device)
    loss, inlier = ops.outlier_robust_loss(image, image, mask)
    assert loss.item() == pytest.approx(1.5 * math.log(2 * math.pi) + 3 * math.log(0.043))
    assert torch.equal(inlier, mask[:, None])


def test_the_cutoff_is_a_distance_over_all_channels(kernel_device: torch.device) -> None:
    target = torch.zeros(1, 3, 1, 2, device=kernel_device)
    target[..., 0], target[..., 1] = 0.07, 0.08  # times sqrt(3): 0.121 and 0.139, and the cutoff is 0.129
    mask = torch.ones(1, 1, 1, 2, device=kernel_device)
    assert ops.outlier_robust_loss(target, torch.zeros_like(target), mask)[1].tolist() == [[[[1.0, 0.0]]]]


def test_the_inlier_mask_is_a_constant(kernel_device: torch.device) -> None:
    images = _four_pixels(kernel_device)
    for module in (ops, reference):
        loss, inlier = module.outlier_robust_loss(*images, sigma=1.0)
        assert loss.requires_grad
        assert not inlier.requires_grad


def test_edits_of_the_inlier_mask_do_not_reach_the_gradient(kernel_device: torch.device) -> None:
    images = _four_pixels(kernel_device)
    loss, inlier = ops.outlier_robust_loss(*images, sigma=1.0, cutoff=2.0)
    inlier.zero_()
    assert torch.autograd.grad(loss, images)[0].tolist() == [[[[0.0, 0.125], [0.0, 0.0]]]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_values_that_are_not_finite(value: float, position: int, kernel_device: torch.device) -> None:
    """The loss is not finite, even where the pixel is no inlier, and the other pixels are judged as ever."""
    images = [image.detach() for image in _four_pixels(kernel_device)]
    images[position][0, 0, 1, 1] = value
    loss, inlier = ops.outlier_robust_loss(*images, sigma=1.0, cutoff=2.0)
    expected, expected_inlier = reference.outlier_robust_loss(*images, sigma=1.0, cutoff=2.0)
    assert loss.isnan()
    assert expected.isnan()
    torch.testing.assert_close(inlier, expected_inlier, equal_nan=True)
    assert inlier[0, 0, 0].tolist() == [1.0, 0.5]
    assert position == 2 or inlier[0, 0, 1, 1] == 0


@pytest.mark.parametrize("name", ["sigma", "cutoff"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, None])
def test_wrong_scales_are_refused(name: str, value: Any) -> None:
    image, mask = torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match=rf"outlier_robust_loss: {name} expected a finite number > 0, got {value}"):
        ops.outlier_robust_loss(image, image, mask, **{name: value})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 60)),
    seed=st.integers(0, 2**31),
    sigma=st.floats(0.02, 1),
    cutoff=st.floats(0.5, 4),
)
def test_properties(shape: tuple[int, int, int, int], seed: int, sigma: float, cutoff: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    target, reconstruction = (torch.rand(shape, generator=generator, dtype=torch.double) for _ in range(2))
    mask = torch.rand(shape[0], 1, *shape[2:], generator=generator, dtype=torch.double)
    loss, inlier = ops.outlier_robust_loss(target, reconstruction, mask, sigma=sigma, cutoff=cutoff)
    expected, expected_inlier = reference.outlier_robust_loss(target, reconstruction, mask, sigma=sigma, cutoff=cutoff)
    torch.testing.assert_close(loss, expected)
    assert torch.equal(inlier, expected_inlier)
    _, more = ops.outlier_robust_loss(target, reconstruction, mask, sigma=sigma, cutoff=2 * cutoff)
    assert (inlier <= more).all()
    assert (more <= mask).all()
    # Scaling the image and sigma alike moves the log-likelihood by a constant.
    scaled, _ = ops.outlier_robust_loss(4 * target, 4 * reconstruction, mask, sigma=4 * sigma, cutoff=cutoff)
    torch.testing.assert_close(scaled, loss + shape[1] * math.log(4) * inlier.mean())
