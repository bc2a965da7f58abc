"""Promises that need many calls, threads or inputs: bits, memory, coverage of the pixel grid, extreme numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focus import ops
from focus.ops import reference

NAN, INF = float("nan"), float("inf")

fixed = settings(derandomize=True, database=None, deadline=None)


def _sheet_faces(side: int) -> torch.Tensor:
    corner = (torch.arange(side - 1)[:, None] * side + torch.arange(side - 1)).reshape(-1, 1)
    return torch.cat([corner + torch.tensor([0, 1, side]), corner + torch.tensor([1, side + 1, side])])


SIDE = 40  # vertices in a row: more than a chunk of 1,024 in all
FACES = _sheet_faces(SIDE)
SIZE = 131, 126  # pixels: enough of them for several threads to share an image


def _mesh(generator: torch.Generator, batch: int = 2) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    flat = torch.stack([x, y, torch.full_like(x, 20)], -1).reshape(1, -1, 3).float()
    return (3.2 * flat + torch.rand(batch, SIDE**2, 3, generator=generator)).requires_grad_()


def _results(outputs: tuple[torch.Tensor, ...], inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    floating = [output for output in outputs if output.requires_grad]
    weights = [torch.linspace(-1, 2, output.numel()).reshape(output.shape) for output in floating]
    return (*outputs, *torch.autograd.grad(floating, inputs, weights))


def _rasterize(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    vertices = _mesh(generator)
    return _results(ops.rasterize(vertices, FACES, SIZE, perspective_correct=True), (vertices,))


def _interpolate(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    fragments = ops.rasterize(_mesh(generator).detach(), FACES, SIZE)
    barycentric = fragments.barycentric.requires_grad_()
    attributes = torch.rand(1, SIDE**2, 4, generator=generator, requires_grad=True)
    values = ops.interpolate(attributes, FACES, fragments._replace(barycentric=barycentric))
    return _results((values,), (attributes, barycentric))


def _render(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    inputs = (_mesh(generator), torch.rand(1, SIDE**2, 3, generator=generator, requires_grad=True))
    return _results(ops.render(*inputs, FACES, SIZE, perspective_correct=True), inputs)


def _antialias(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    vertices, image = _mesh(generator), torch.rand(2, 3, *SIZE, generator=generator, requires_grad=True)
    faces = FACES[::2]  # with holes, and so with outlines all over
    face_index = ops.rasterize(vertices.detach(), faces, SIZE).face_index
    return _results((ops.antialias(image, vertices, faces, face_index),), (image, vertices))


def _vertex_normals(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    vertices = _mesh(generator)
    return _results((ops.vertex_normals(vertices, FACES),), (vertices,))


def _sh_shading(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    inputs = (_mesh(generator), _mesh(generator), torch.rand(2, 3, 9, generator=generator, requires_grad=True))
    return _results((ops.sh_shading(*inputs),), inputs)


def _of_images(call: Callable[..., torch.Tensor]) -> Callable[[torch.Generator], tuple[torch.Tensor, ...]]:
    def results(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        images = tuple(torch.rand(2, channels, 67, 45, generator=generator).requires_grad_() for channels in (3, 3, 1))
        return _results((call(*images),), images)

    return results


OPERATORS: dict[str, Callable[[torch.Generator], tuple[torch.Tensor, ...]]] = {
    "rasterize": _rasterize,
    "interpolate": _interpolate,
    "render": _render,
    "antialias": _antialias,
    "vertex_normals": _vertex_normals,
    "sh_shading": _sh_shading,
    "neighbor_min": _of_images(lambda *images: ops.neighbor_min(*images, window=5)),
    "neighbor_min_loss": _of_images(ops.neighbor_min_loss),
    "masked_photometric_loss": _of_images(ops.masked_photometric_loss),
    "outlier_robust_loss": _of_images(lambda *images: ops.outlier_robust_loss(*images, sigma=0.3)[0]),
}
assert set(OPERATORS) == {name for name in ops.__all__ if name[0].islower()} - {"reference"}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def _call(name: str, seed: int = 0) -> tuple[torch.Tensor, ...]:
    return OPERATORS[name](torch.Generator().manual_seed(seed))


def _same(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@every_operator
@pytest.mark.usefixtures("restored_threads")
def test_twenty_runs_on_one_two_and_five_threads_have_the_same_bits(name: str) -> None:
    torch.set_num_threads(1)
    expected = _call(name)
    assert all(float(result.detach().abs().sum()) > 0 for result in expected)
    for run in range(20):
        torch.set_num_threads((1, 2, 5)[run % 3])
        assert _same(_call(name), expected)


def test_callers_in_several_threads_get_what_they_get_alone() -> None:
    """All operators at once, forward and backward."""
    jobs = [(name, seed) for seed in range(3) for name in OPERATORS]
    alone = [_call(*job) for job in jobs]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda job: _call(*job), jobs))
    assert all(_same(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of the process from /proc")
def test_a_thousand_calls_leave_no_memory_behind() -> None:
    """The smallest tensor of a call on images holds 4 KB, so 1,000 lost ones would show."""
    vertices = torch.rand(1, 400, 3) * torch.tensor([32.0, 32.0, 1.0]) + torch.tensor([0.0, 0.0, 1.0])
    topology = ops.Topology(_sheet_faces(20), 400)
    light = torch.rand(1, 3, 9, requires_grad=True)
    mask = torch.rand(1, 1, 32, 32, requires_grad=True)

    def once() -> None:
        moved = vertices.requires_grad_()
        ops.Topology(topology.faces, 400)
        fragments = ops.rasterize(moved, topology, (32, 32))
        colors = ops.sh_shading(ops.vertex_normals(moved, topology), moved, light)
        image = ops.interpolate(colors, topology, fragments)
        losses = ops.neighbor_min_loss(image.detach(), image, mask), ops.masked_photometric_loss(image, image * 2, mask)
        distance = ops.neighbor_min(image, image * 0.5)
        outliers, _ = ops.outlier_robust_loss(image, image * 3, mask)
        torch.autograd.grad(sum(losses) + outliers + distance.sum() + fragments.depth.sum(), (moved, light, mask))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(150):
        once()
    before = resident()
    for _ in range(1000):
        once()
    assert resident() - before < 2_000_000


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_index_types_of_faces(dtype: torch.dtype) -> None:
    vertices, topology = _mesh(torch.Generator().manual_seed(3)).detach(), ops.Topology(FACES, SIDE**2)
    fragments = ops.rasterize(vertices, topology, (30, 40))
    faces = FACES.to(dtype)
    assert _same(ops.rasterize(vertices, faces, (30, 40)), fragments)
    assert torch.equal(ops.vertex_normals(vertices, faces), ops.vertex_normals(vertices, topology))
    values = ops.interpolate(vertices, faces, fragments)
    assert torch.equal(values, ops.interpolate(vertices, topology, fragments))


def test_a_mesh_out_of_view_has_no_gradient(kernel_device: torch.device) -> None:
    vertices = torch.tensor([[[50.0, 1, 5], [60, 1, 5], [50, 9, 5], [1, 1, -5]]], device=kernel_device).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 1, 3]], device=kernel_device)
    fragments = ops.rasterize(vertices, faces, (8, 8))
    values = ops.interpolate(vertices, faces, fragments)
    assert (fragments.face_index == -1).all()
    assert (values == 0).all()
    (gradient,) = torch.autograd.grad(values.sum() + fragments.depth.sum(), vertices)
    assert (gradient == 0).all()


# Steps from one vertex of a tessellated rectangle to the next, in half pixels; along the other side they are turned.
STEPS = [(6, 0), (7, 0), (6, 3), (5, -4), (1, 6), (9, 2)]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("step", STEPS)
def test_tessellated_rectangles_cover_their_pixels_and_no_others(step: tuple[int, int], shift: int) -> None:
    """Vertices on whole and half pixels, the inner ones moved by half pixels and by one unit in the last place: over a
    million pixels inside in all, of which none is lost, and none outside is hit."""
    side, size = 40, 240
    generator = torch.Generator().manual_seed(10 * step[0] + step[1] + shift)
    a, b = step
    j, i = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    grid = torch.stack([i * a - j * b, i * b + j * a], -1)
    grid = grid - grid.amin((0, 1)) + 20 + shift
    batch = 8
    inner = torch.zeros(batch, side, side, 2, dtype=torch.int64)
    inner[:, 1:-1, 1:-1] = torch.randint(-1, 2, (batch, side - 2, side - 2, 2), generator=generator)
    points = (grid + inner).float() / 2
    ulps = torch.randint(-1, 2, points.shape, generator=generator) * (inner != 0)
    points = torch.where(ulps == 0, points, torch.nextafter(points, points + ulps))
    vertices = torch.cat([points, torch.full((*points.shape[:-1], 1), 10.0)], -1).reshape(batch, -1, 3)
    found = ops.rasterize(vertices, _sheet_faces(side), (size, size)).face_index >= 0
    y, x = torch.meshgrid(2 * torch.arange(size), 2 * torch.arange(size), indexing="ij")
    x, y = x - grid[0, 0, 0], y - grid[0, 0, 1]
    along, across, end = x * a + y * b, y * a - x * b, (side - 1) * (a * a + b * b)
    inside = (along >= 0) & (along <= end) & (across >= 0) & (across <= end)
    assert int(inside.sum()) * batch * len(STEPS) * 2 > 1_000_000
    assert torch.equal(found, inside.expand_as(found))


seeds = st.integers(0, 2**31)


@given(seeds)
@settings(fixed, max_examples=40)
def test_order_of_faces_and_of_the_batch(seed: int) -> None:
    """But for pixels on a common edge or vertex, where depths tie."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(3, 20, 3, generator=generator) * torch.tensor([20.0, 20, 9]) + torch.tensor([-3.0, -3, 1])
    faces = torch.randint(0, 20, (12, 3), generator=generator).sort(1).values.unique(dim=0)
    order, images = torch.randperm(len(faces), generator=generator), torch.tensor([2, 0, 1])
    expected = [tensor[images] for tensor in ops.rasterize(vertices, faces, (16, 15))]
    actual = ops.rasterize(vertices[images], faces[order], (16, 15))
    renamed = torch.where(actual.face_index < 0, -1, order[actual.face_index.clamp(min=0)])
    inside = (expected[1].amin(-1) > 1e-6) | (expected[0] < 0)
    assert torch.equal(renamed[inside], expected[0][inside].long())
    assert torch.equal(actual.barycentric[inside], expected[1][inside])
    assert torch.equal(actual.depth[inside], expected[2][inside])


EXTREMES = [1e30, -1e30, 1e-30, -1e-30, 3e38, NAN, INF, -INF, 0.0, 1.0, 2.5, 4.0, 7.0, 3.0]
DEPTHS = [1e30, 1e-30, 3e38, 0.0, -1.0, NAN, INF, 5.0, 7.0, 6.0]
points = st.tuples(st.sampled_from(EXTREMES), st.sampled_from(EXTREMES), st.sampled_from(DEPTHS))


def _may_show(corners: list[list[float]]) -> bool:
    if any(not abs(number) < INF for corner in corners for number in corner) or any(z <= 0 for _, _, z in corners):
        return False
    (ax, ay), (bx, by), (cx, cy) = ([Fraction(x), Fraction(y)] for x, y, _ in corners)
    return (bx - ax) * (cy - ay) != (by - ay) * (cx - ax)


@given(st.lists(points, min_size=6, max_size=6), seeds, st.booleans())
@settings(fixed, max_examples=150)
def test_extreme_and_broken_meshes(made_up: list[tuple[float, float, float]], seed: int, perspective: bool) -> None:
    """Faces that must be left out are, the others stay in their boxes, and nothing becomes NaN.

    The twin is no measure here: without boxes, it finds pixels where the rounding of 1e30 leads it.
    """
    vertices = torch.tensor([made_up], requires_grad=True)
    faces = torch.randint(0, 6, (8, 3), generator=torch.Generator().manual_seed(seed))
    fragments = ops.rasterize(vertices, faces, (8, 9), perspective_correct=perspective)
    shown = [int(index) for index in fragments.face_index.unique() if index >= 0]
    assert all(_may_show(vertices[0, faces[index]].tolist()) for index in shown)
    assert fragments.depth.isfinite().all()
    assert ((fragments.depth > 0) == (fragments.face_index >= 0)).all()
    assert (fragments.barycentric >= 0).all()
    covered = fragments.face_index >= 0
    total = fragments.barycentric.sum(-1)[covered]
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    y, x = covered[0].nonzero(as_tuple=True)
    corners = vertices[0, faces[fragments.face_index[0, y, x].long()], :2]
    pixels = torch.stack([x, y], -1)
    assert ((corners.amin(1) <= pixels) & (pixels <= corners.amax(1))).all()
    (gradient,) = torch.autograd.grad(fragments.barycentric.square().sum(), vertices)
    assert not gradient.isnan().any()
    normals = ops.vertex_normals(vertices, faces)
    lengths = normals.norm(dim=-1)
    assert (((lengths - 1).abs() < 1e-6) | (lengths == 0)).all()
    (gradient,) = torch.autograd.grad(normals[..., 0].sum(), vertices)
    assert not gradient.isnan().any()


@given(seeds)
@settings(fixed, max_examples=30)
def test_random_meshes_have_the_twins_normals_and_values(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 12, 3, generator=generator, dtype=torch.double) * 9 + 0.5
    faces = (
        torch.rand(15, 12, generator=generator).argsort(1)[:, :3].sort(1).values.unique(dim=0)
    )  # none cancels another
    torch.testing.assert_close(ops.vertex_normals(vertices, faces), reference.vertex_normals(vertices, faces))
    fragments = ops.rasterize(vertices, faces, (8, 10))
    attributes = torch.rand(2, 12, 2, generator=generator, dtype=torch.double)
    expected = reference.interpolate(attributes, faces, fragments)
    torch.testing.assert_close(ops.interpolate(attributes, faces, fragments), expected)
