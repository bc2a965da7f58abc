"""Vertex normals."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from focus import ops
from focus.ops import _native

NAN, INF = float("nan"), float("inf")


def _normals(device: torch.device, points: list[tuple[float, ...]], faces: list[list[int]]) -> torch.Tensor:
    index = torch.tensor(faces, dtype=torch.int64, device=device).reshape(-1, 3)
    return ops.vertex_normals(torch.tensor([points], device=device), index)[0]


def test_a_face_counterclockwise_seen_from_above_points_up(kernel_device: torch.device) -> None:
    normals = _normals(kernel_device, [(0, 0, 0.0), (2, 0, 0), (0, 3, 0)], [[0, 1, 2]])
    assert normals.tolist() == [[0, 0, 1]] * 3


def test_faces_weigh_by_their_area(kernel_device: torch.device) -> None:
    """At the vertex of two right triangles: one of area 2 in the plane z = 0, one of area 6 in the plane x = 0."""
    points = [(0, 0, 0.0), (2, 0, 0), (0, 2, 0), (0, 0, 6.0)]
    normal = _normals(kernel_device, points, [[0, 1, 2], [0, 2, 3]])[0]
    expected = torch.tensor([6.0, 0.0, 2.0], device=kernel_device)
    torch.testing.assert_close(normal, expected / expected.norm())


def test_a_flat_patch_that_faces_the_camera_has_finite_gradients(kernel_device: torch.device) -> None:
    """Also through the lighting: with angles instead of polynomials the pole makes each of them NaN."""
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    vertices = torch.stack([x, -y, torch.zeros(3, 3)], -1).reshape(1, 9, 3).to(kernel_device).requires_grad_()
    faces = [f for v in (0, 1, 3, 4) for f in ([v, v + 3, v + 1], [v + 1, v + 3, v + 4])]
    normals = ops.vertex_normals(vertices, torch.tensor(faces, device=kernel_device))
    assert (normals == torch.tensor([0.0, 0.0, 1.0], device=kernel_device)).all()
    light = torch.arange(27.0, device=kernel_device).reshape(1, 3, 9)
    ops.sh_shading(normals, torch.ones_like(normals), light).square().sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
    assert (vertices.grad != 0).any()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_bad_vertex_removes_its_faces_and_nothing_else(kernel_device: torch.device, bad: float, axis: int) -> None:
    points = torch.tensor([[(0.0, 0.0, 0.0), (1, 0, 0), (0, 1, 0.5), (2, 2, 2)]], device=kernel_device)
    points[0, 3, axis] = bad
    vertices = points.requires_grad_()
    both = ops.vertex_normals(vertices, torch.tensor([[0, 1, 2], [1, 3, 2]], device=kernel_device))
    alone = ops.vertex_normals(vertices.detach()[:, :3], torch.tensor([[0, 1, 2]], device=kernel_device))
    assert torch.equal(both[:, :3], alone)
    assert (both[:, 3] == 0).all()
    (both * torch.arange(3.0, device=kernel_device)).sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
    assert (vertices.grad[0, 3] == 0).all()


def test_vertices_without_area_have_no_normal(kernel_device: torch.device) -> None:
    """A lone vertex, two faces that cancel, and faces of one or two distinct vertices."""
    points = [(0, 0, 0.0), (1, 0, 0), (0, 1, 0), (5, 5, 5)]
    vertices = torch.tensor([points], device=kernel_device, requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 2, 1], [0, 0, 0], [1, 1, 2]], device=kernel_device)
    normals = ops.vertex_normals(vertices, faces)
    assert (normals == 0).all()
    normals.sum().backward()
    assert vertices.grad is not None
    assert (vertices.grad == 0).all()


@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1e9, 1e18])
def test_scale_does_not_matter(kernel_device: torch.device, scale: float) -> None:
    """The squares of the sums leave the range of single precision below edges of 1e-9 and above 1e9."""
    points = torch.tensor([[(0.0, 0.1, 0.2), (1.0, 0.0, 0.3), (0.2, 1.0, 0.1)]], device=kernel_device)
    faces = torch.tensor([[0, 1, 2]], device=kernel_device)
    expected = ops.vertex_normals(points, faces)
    torch.testing.assert_close(ops.vertex_normals(points * scale, faces), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e25, 3e38])
def test_edges_whose_product_leaves_the_range_count_for_nothing(kernel_device: torch.device, scale: float) -> None:
    points = torch.tensor([[(0.0, 0.1, 0.2), (1.0, 0.0, 0.3), (0.2, 1.0, 0.1)]], device=kernel_device)
    vertices = (points * scale).requires_grad_()
    normals = ops.vertex_normals(vertices, torch.tensor([[0, 1, 2]], device=kernel_device))
    assert (normals == 0).all()
    normals.sum().backward()
    assert vertices.grad is not None
    assert (vertices.grad == 0).all()


def test_gradients_do_not_change_the_length_of_a_normal(kernel_device: torch.device) -> None:
    vertices = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0)).to(kernel_device).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [2, 3, 4], [4, 3, 5]], device=kernel_device)
    ops.vertex_normals(vertices, faces).square().sum().backward()  # the squared lengths: all 1
    assert vertices.grad is not None
    assert float(vertices.grad.abs().max()) < 1e-5


def _normals_and_gradients(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = vertices.clone().requires_grad_()
    normals = ops.vertex_normals(leaf, faces)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(normals.shape, generator=generator, dtype=normals.dtype)
    (gradients,) = torch.autograd.grad(normals, leaf, weights)
    return normals.detach(), gradients


def _tangle(batch: int, vertex_count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces between any vertices, also the same twice, with some that are not finite."""
    generator = torch.Generator().manual_seed(vertex_count)
    vertices = torch.rand(batch, vertex_count, 3, generator=generator, dtype=dtype)
    vertices[:, 3, 0], vertices[-1, 5, 1], vertices[0, 7, 2] = NAN, INF, -INF
    return vertices, torch.randint(vertex_count, (3 * vertex_count, 3), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "vertex_count"), [(1, 2501), (3, 1029), (2, 13)])
def test_neither_vector_code_nor_threads_change_a_bit(
    dtype: torch.dtype, batch: int, vertex_count: int, every_vector_code: list[Callable[[], None]]
) -> None:
    """At sizes of which an image is one part or several, and whose last lanes are not full."""
    vertices, faces = _tangle(batch, vertex_count, dtype)
    before, results = torch.get_num_threads(), []
    for choose in every_vector_code:
        choose()
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(_normals_and_gradients(vertices, faces))
    torch.set_num_threads(before)
    assert all(float(tensor.abs().max()) > 0 and tensor.isfinite().all() for tensor in results[0])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_faces_add_up_in_the_same_order_on_cuda(emulated_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's kernel walks the faces, the CUDA kernel the faces at each vertex."""
    vertices, faces = _tangle(2, 77, torch.float32)
    expected = _normals_and_gradients(vertices, faces)
    monkeypatch.setattr(_native, "module", emulated_module)
    assert all(torch.equal(a, b) for a, b in zip(_normals_and_gradients(vertices, faces), expected, strict=True))


@pytest.mark.parametrize("vertex_count", [0, 5])
def test_no_faces(kernel_device: torch.device, vertex_count: int) -> None:
    vertices = torch.ones(2, vertex_count, 3, device=kernel_device, requires_grad=True)
    normals = ops.vertex_normals(vertices, torch.zeros(0, 3, dtype=torch.int32, device=kernel_device))
    assert normals.shape == vertices.shape
    assert (normals == 0).all()
    normals.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"vertices": [1.0]}, TypeError, "vertex_normals: vertices expected a torch.Tensor, got list"),
        ({"vertices": torch.ones(3, 3)}, ValueError, r"vertices expected shape \[B, V, 3\], got \[3, 3\]"),
        ({"vertices": torch.ones(1, 3, 3).bool()}, TypeError, "vertices expected a floating dtype, got torch.bool"),
        ({"faces": torch.tensor([[0, 1, 3]])}, ValueError, r"1 of 3 entries of faces lie outside \[0, 3\)"),
        (
            {"faces": ops.Topology(torch.tensor([[0, 1, 2]]), 4)},
            ValueError,
            "the topology is of 4 vertices, and 3 came",
        ),
    ],
)
def test_errors_name_what_was_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {"vertices": torch.ones(1, 3, 3), "faces": torch.tensor([[0, 1, 2]])}
    with pytest.raises(error, match=message):
        ops.vertex_normals(**{**valid, **arguments})
