"""Alignment of faces to the template of ArcFace."""

from __future__ import annotations

import math

import pytest
import torch

from focus.nets import align_faces, estimate_similarity, five_from_68
from focus.nets.alignment import ARCFACE_POINTS, template_points, warp


def landmarks_with_five(points: torch.Tensor) -> torch.Tensor:
    """``[B, 5, 2]`` -> ``[B, 68, 2]`` whose five points are these; the rest is zero."""
    landmarks = torch.zeros(len(points), 68, 2, dtype=points.dtype)
    for index, (corners) in enumerate(((36, 39), (42, 45), (30,), (48,), (54,))):
        landmarks[:, list(corners)] = points[:, index : index + 1]
    return landmarks


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> torch.Tensor:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[c, -s, shift[0]], [s, c, shift[1]]], dtype=torch.float64)


def test_five_points_are_eye_centers_nose_tip_and_mouth_corners() -> None:
    landmarks = torch.arange(136.0).view(1, 68, 2)
    expected = [[75.0, 76.0], [87.0, 88.0], [60.0, 61.0], [96.0, 97.0], [108.0, 109.0]]
    assert five_from_68(landmarks).tolist() == [expected]


@pytest.mark.parametrize("shape", [(68, 2), (1, 5, 2), (1, 68, 3)])
def test_wrong_landmarks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"landmarks: expected shape \[B, 68, 2\]"):
        five_from_68(torch.zeros(shape))


def test_a_similarity_is_recovered_exactly() -> None:
    source = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack((similarity(0.5, 0.3, (10, -4)), similarity(3.0, -2.5, (0, 7))))
    target = source @ expected[:, :, :2].mT + expected[:, None, :, 2]
    assert torch.allclose(estimate_similarity(source, target), expected, atol=1e-12)


def test_the_estimate_is_the_least_squares_one() -> None:
    generator = torch.Generator().manual_seed(1)
    source, target = torch.randn(2, 1, 7, 2, dtype=torch.float64, generator=generator).unbind()
    best = estimate_similarity(source, target)

    def error(matrix: torch.Tensor) -> float:
        return float((source @ matrix[:, :, :2].mT + matrix[:, None, :, 2] - target).square().sum())

    c, s, shift = best[0, 0, 0].item(), best[0, 1, 0].item(), best[0, :, 2]
    for change in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        linear = torch.tensor([[c + change[0], -s - change[1]], [s + change[1], c + change[0]]], dtype=torch.float64)
        assert error(torch.cat((linear, shift[:, None]), dim=1)[None]) > error(best)
        moved = best.clone()
        moved[0, :, 2] += torch.tensor(change, dtype=torch.float64)
        assert error(moved) > error(best)


def test_equal_points_give_no_nan() -> None:
    points = torch.full((1, 5, 2), 3.0, requires_grad=True)
    matrix = estimate_similarity(points, torch.tensor(ARCFACE_POINTS))
    image = warp(torch.rand(1, 3, 8, 8), matrix, 8)
    image.sum().backward()
    assert bool(torch.isfinite(image).all())
    assert points.grad is not None
    assert bool(torch.isfinite(points.grad).all())


def test_warp_by_a_whole_pixel_shift_and_a_quarter_turn() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    shifted = warp(image, similarity(1, 0, (1, -1))[None].float(), 3)  # right by one, up by one
    assert torch.allclose(shifted[0, 0], torch.tensor([[0.0, 4, 5], [0, 8, 9], [0, 0, 0]]), atol=1e-5)
    square = torch.arange(9.0).view(1, 1, 3, 3)
    # (x, y) -> (-y, x) + (2, 0): what was at the top left goes to the top right.
    turned = warp(square, similarity(1, math.pi / 2, (2, 0))[None].float(), 3)
    assert torch.allclose(turned[0, 0], torch.rot90(square[0, 0], -1), atol=1e-5)


@pytest.mark.parametrize("size", [64, 112])
def test_marks_on_the_landmarks_come_to_the_template(size: int) -> None:
    """A blob drawn at each of the five points of a rolled face is found at the template's points."""
    template = torch.tensor(ARCFACE_POINTS, dtype=torch.float64)
    points = (template @ similarity(0.9, 0.2, (0, 0))[:, :2].T + torch.tensor([20.0, 2.0])).float()
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    squared = (x - points[:, 0, None, None]).square() + (y - points[:, 1, None, None]).square()
    image = torch.exp(-squared / 8)[None]  # [1, 5, 128, 128], a channel per point
    aligned = align_faces(image, landmarks_with_five(points[None]), size)[0]
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    mass = aligned.sum(dim=(1, 2))
    found = torch.stack(((aligned * x).sum(dim=(1, 2)) / mass, (aligned * y).sum(dim=(1, 2)) / mass), dim=-1)
    assert torch.allclose(found, template_points(size, like=found), atol=0.05)


def test_large_crops_are_averaged_before_they_shrink() -> None:
    """A checkerboard of single pixels must become grey, not a moire of black and white."""
    size = 8 * 64
    board = ((torch.arange(size)[:, None] + torch.arange(size)) % 2).float().expand(1, 3, -1, -1)
    points = template_points(size, like=board)[None]
    aligned = align_faces(board, landmarks_with_five(points), 64)
    assert bool(((aligned[:, :, 2:-2, 2:-2] - 0.5).abs() < 0.01).all())


def test_gradients_reach_images_and_landmarks() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 12, 12, dtype=torch.float64, generator=generator, requires_grad=True)
    five = template_points(12, like=image.detach())[None] + 0.3 * torch.rand(1, 5, 2, generator=generator).double()
    landmarks = landmarks_with_five(five).requires_grad_()

    # Bilinear sampling has kinks where a sample meets a pixel centre; this seed's samples keep clear of them.
    def warped(pixels: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return align_faces(pixels, points, 6)

    assert torch.autograd.gradcheck(warped, (image, landmarks), eps=1e-7, atol=1e-5)


def test_batch_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="of one batch size"):
        align_faces(torch.rand(2, 3, 8, 8), torch.rand(1, 68, 2))
