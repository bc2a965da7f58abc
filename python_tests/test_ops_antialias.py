"""Smooth coverage at silhouettes: exact blends, areas, gradients, and the kernel against its twin."""

from __future__ import annotations

import pytest
import torch

from focus import ops


def _square(left: float, top: float, side: float, z: float = 5.0) -> torch.Tensor:
    x, y = torch.tensor([0.0, 1, 1, 0]) * side + left, torch.tensor([0.0, 0, 1, 1]) * side + top
    return torch.stack([x, y, torch.full((4,), z)], -1).double()[None]


QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)


def _coverage(vertices: torch.Tensor, faces: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    index = ops.rasterize(vertices, faces, size).face_index
    return ops.antialias((index >= 0)[:, None].to(vertices.dtype), vertices, faces, index)


def _scene(seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Overlapping triangles, some that share edges and fold over, on 12 x 14 pixels with random colours."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 8, 3, generator=generator, dtype=torch.float64) * torch.tensor([14.0, 12, 3]) + 0.1
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6], [6, 5, 7], [0, 2, 7]], dtype=torch.int32)
    index = ops.rasterize(vertices.to(dtype), faces, (12, 14)).face_index
    image = torch.rand(2, 3, 12, 14, generator=generator, dtype=torch.float64)
    return image.to(dtype), vertices.to(dtype), faces, index


@pytest.mark.parametrize("edge", [3.0, 3.25, 3.5, 3.875])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_half_plane_blends_by_its_position(edge: float, axis: int) -> None:
    vertices = torch.tensor([[[edge - 40, -30, 5], [edge, -30, 5], [edge, 30, 5], [edge - 40, 30, 5]]]).double()
    if axis:
        vertices = vertices[..., [1, 0, 2]]
    line = _coverage(vertices, QUAD, (8, 8))[0, 0]
    expected = (edge + 0.5 - torch.arange(8.0).double()).clamp(0, 1)  # the covered part of each pixel's cell
    torch.testing.assert_close(line, expected.expand(8, 8).T if axis else expected.expand(8, 8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [0.1, 0.3, 0.45, 0.7])
def test_moving_a_side_adds_the_area_it_sweeps(shift: float) -> None:
    strip = torch.tensor(
        [[[-20, -20, 5], [4.2 + shift, -20, 5], [4.2 + shift, 40, 5], [-20, 40, 5]]], dtype=torch.float64
    )
    assert float(_coverage(strip, QUAD, (10, 12)).sum()) == pytest.approx(10 * (4.7 + shift), abs=1e-9)


def test_an_oblique_edge_counts_once_and_has_the_area_for_gradient() -> None:
    """d area / d x of a steep edge across the image is its height, split between its ends: not twice, not half."""
    vertices = torch.tensor([[[-60, -30, 5], [1, -30, 5], [15, 40, 5], [-60, 40, 5]]]).double().requires_grad_()
    _coverage(vertices, QUAD, (10, 12)).sum().backward()
    assert vertices.grad is not None
    assert float(vertices.grad[0, 1:3, 0].sum()) == pytest.approx(10.0, abs=1e-9)
    assert float(vertices.grad[0, 1:3, 1].sum()) == pytest.approx(-10.0 * 14 / 70, abs=1e-9)


def test_the_gradient_is_that_of_a_supersampled_area() -> None:
    """But for the ends of the edges, where up to a pixel is seen too little or too much."""
    vertices = torch.tensor([[[3.3, 4.1, 5], [42.7, 9.6, 5], [17.45, 43.2, 5]]], dtype=torch.float64).requires_grad_()
    faces = QUAD[:1]
    _coverage(vertices, faces, (48, 48)).sum().backward()
    scale, step = 16, 0.25

    def area(points: torch.Tensor) -> float:
        fine = points.detach().clone()
        fine[..., :2] = (fine[..., :2] + 0.5) * scale - 0.5
        return float((ops.rasterize(fine, faces, (48 * scale, 48 * scale)).face_index >= 0).sum()) / scale**2

    assert vertices.grad is not None
    for vertex in range(3):
        for axis in range(2):
            moved = torch.zeros_like(vertices)
            moved[0, vertex, axis] = step
            slope = (area(vertices + moved) - area(vertices - moved)) / (2 * step)
            assert float(vertices.grad[0, vertex, axis]) == pytest.approx(slope, abs=1)


def test_only_the_face_at_the_pixel_is_looked_at() -> None:
    """The limit of the rule: pixel (3, 4) lies across the diagonal from the top edge, which therefore misses it."""
    vertices = _square(2.3, 3.1, 7.45)
    coverage = _coverage(vertices, QUAD, (16, 16))[0, 0]
    torch.testing.assert_close(coverage[3, 4:9], torch.full((5,), 0.4).double(), rtol=0, atol=1e-6)
    assert float(coverage[3, 3]) == 0


def test_an_edge_inside_the_surface_is_left_alone() -> None:
    image = torch.rand(1, 2, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vertices = _square(-5.0, -6.0, 30.0)
    index = ops.rasterize(vertices, QUAD, (10, 10)).face_index
    assert index.unique().numel() == 2
    assert torch.equal(ops.antialias(image, vertices, QUAD, index), image)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twin(seed: int, dtype: torch.dtype) -> None:
    image, vertices, faces, index = _scene(seed, dtype)
    results = []
    for op in (ops.antialias, ops.reference.antialias):
        inputs = (image.clone().requires_grad_(), vertices.clone().requires_grad_())
        values = op(*inputs, faces, index)
        weights = torch.linspace(-1, 1, values.numel(), dtype=dtype).view_as(values)
        results.append((values.detach(), *torch.autograd.grad((values * weights).sum(), inputs)))
    assert not torch.equal(results[0][0], image)
    assert bool((results[0][2] != 0).any())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, rtol=tolerance, atol=tolerance)


def test_the_same_bits_for_every_thread_count() -> None:
    image, vertices, faces, index = _scene(3, torch.float32)
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            inputs = (image.clone().requires_grad_(), vertices.clone().requires_grad_())
            values = ops.antialias(*inputs, faces, index)
            results.append((values.detach(), *torch.autograd.grad(values.square().sum(), inputs)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))


def test_every_implementation_agrees_with_the_twin(kernel_device: torch.device) -> None:
    image, vertices, faces, index = (tensor.to(kernel_device) for tensor in _scene(1, torch.float32))
    outcomes = []
    for op in (ops.antialias, ops.reference.antialias):
        inputs = (image.clone().requires_grad_(), vertices.clone().requires_grad_())
        values = op(*inputs, faces, index)
        outcomes.append((values.detach(), *torch.autograd.grad(values.square().sum(), inputs)))
    for ours, twin in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-5)


def test_gradcheck() -> None:
    image, vertices, faces, index = _scene(1)
    inputs = (image[:1, :1].clone().requires_grad_(), vertices[:1].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda i, v: ops.antialias(i, v, faces, index[:1]), inputs)


def test_opcheck_and_compile() -> None:
    image, vertices, faces, index = _scene(2, torch.float32)
    topology = ops.Topology(faces, 8)
    lists = (topology.faces, topology.offsets, topology.corners)
    inputs = (image.requires_grad_(), vertices.requires_grad_(), *lists, index)
    torch.library.opcheck(torch.ops.focus.antialias.default, inputs)
    compiled = torch.compile(lambda i, v: ops.antialias(i, v, topology, index), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(image, vertices), ops.antialias(image, vertices, topology, index))


def test_misuse_is_named() -> None:
    image, vertices, faces, index = _scene(0)
    with pytest.raises(TypeError, match="face_index expected int32"):
        ops.antialias(image, vertices, faces, index.long())
    with pytest.raises(ValueError, match="image"):
        ops.antialias(image[..., 1:], vertices, faces, index)
