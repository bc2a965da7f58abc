"""Smooth coverage at silhouettes: exact blends, areas, gradients, and the kernel against its twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from focus import ops
from focus.ops import reference
from focus.ops.rasterize import Cull


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


def _head(rows: int, around: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A wavy, leaning ellipsoid, front and back, open at its poles: `[1, rows around, 3]` and its faces."""
    polar = torch.pi * torch.linspace(0.03, 0.97, rows, dtype=torch.float64)[:, None]
    angle = 2 * torch.pi * torch.arange(around, dtype=torch.float64)[None] / around
    radius = 0.42 * size * (1 + 0.05 * torch.sin(3 * angle + 1) * torch.sin(4 * polar))
    x, y = radius * polar.sin() * angle.cos(), radius * polar.cos()
    points = [
        0.9 * x + 0.2 * y + size / 2 - 0.3,
        y - 0.2 * x + size / 2 - 0.4,
        1000 - radius * polar.sin() * angle.sin(),
    ]
    corner = torch.arange((rows - 1) * around)
    right = torch.where(corner % around == around - 1, corner + 1 - around, corner + 1)
    faces = torch.cat(
        [torch.stack([corner, corner + around, right]), torch.stack([right, corner + around, right + around])], 1
    )
    return torch.stack(points, -1).reshape(1, -1, 3), faces.T.int().contiguous()


DENSITIES = {"faces of 8 pixels": (12, 14), "of 1 pixel": (60, 96), "of a quarter": (130, 190)}


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("cull", ["none", "clockwise"])
def test_coverage_is_near_that_of_many_samples_however_small_the_faces(density: str, cull: Cull) -> None:
    """A hard mask is wrong by about a quarter at the outline, and would fail; so would one that is seldom blended."""
    size, scale = 64, 16
    vertices, faces = _head(*DENSITIES[density], size)
    fine = torch.cat([(vertices[..., :2] + 0.5) * scale - 0.5, vertices[..., 2:]], -1)
    samples = ops.rasterize(fine, faces, (size * scale, size * scale), cull=cull).face_index >= 0
    truth = torch.nn.functional.avg_pool2d(samples[:, None].double(), scale)
    index = ops.rasterize(vertices, faces, (size, size), cull=cull).face_index
    hard = (index >= 0)[:, None].double()
    soft = ops.antialias(hard, vertices, faces, index)
    outline = (truth > 0) & (truth < 1)
    errors = [float((coverage - truth).abs()[outline].mean()) for coverage in (hard, soft)]
    assert errors[0] > 0.18
    assert errors[1] < 0.05
    assert float(soft.sum()) == pytest.approx(float(truth.sum()), rel=0.003)
    assert float((soft - truth).abs()[~outline].max()) < 0.3  # nothing but a corner reaches further
    blended = ((soft != hard) & outline).sum() / outline.sum()
    assert float(blended) > 0.75


@pytest.mark.parametrize("density", DENSITIES)
def test_the_gradient_of_the_area_is_right_however_small_the_faces(density: str) -> None:
    """Growing by a factor of 1 + h adds 2 h of the area, half of it by growing along x; moving adds nothing, but for a
    row or two of the 50 where the outline turns from one axis to the other."""
    size = 64
    vertices, faces = _head(*DENSITIES[density], size)
    vertices.requires_grad_()
    index = ops.rasterize(vertices, faces, (size, size), cull="clockwise").face_index
    area = ops.antialias((index >= 0)[:, None].double(), vertices, faces, index).sum()
    (grad,) = torch.autograd.grad(area, vertices)
    growth = (grad * (vertices.detach() - size / 2))[0].sum(0) / area.detach()
    assert growth[:2].tolist() == pytest.approx([1, 1], abs=0.04)
    assert grad[0].sum(0).tolist() == pytest.approx([0, 0, 0], abs=2)


@pytest.mark.parametrize(
    "corners", [[(3.3, 4.1), (42.7, 9.6), (17.45, 43.2)], [(3.3, 14.1), (42.7, 5.6), (30.45, 43.2)]]
)
def test_the_gradient_of_a_triangle_is_that_of_its_area(corners: list[tuple[float, float]]) -> None:
    """But for the ends of the edges, where up to a pixel is seen too little or too much."""
    vertices = torch.tensor([[(x, y, 5.0) for x, y in corners]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(_coverage(vertices, QUAD[:1], (48, 48)).sum(), vertices)
    (x0, y0), (x1, y1), (x2, y2) = corners
    expected = 0.5 * torch.tensor([[y1 - y2, x2 - x1, 0], [y2 - y0, x0 - x2, 0], [y0 - y1, x1 - x0, 0]])
    assert float((grad[0] - expected).norm() / expected.norm()) < 0.035


def _subdivided(vertices: torch.Tensor, cells: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A square of `_square` as cells x cells pairs of faces, the inner vertices moved about."""
    generator = torch.Generator().manual_seed(seed)
    low, high = vertices[0, 0], vertices[0, 2]
    steps = torch.arange(cells + 1).double() / cells
    grid = torch.stack([*torch.meshgrid(steps, steps, indexing="xy"), torch.zeros(cells + 1, cells + 1)], -1)
    inner = grid[1:-1, 1:-1, :2]
    inner += (torch.rand(inner.shape, generator=generator, dtype=torch.float64) - 0.5) * 0.6 / cells
    corner = (torch.arange(cells)[:, None] * (cells + 1) + torch.arange(cells)).flatten()
    upper = torch.stack([corner, corner + 1, corner + cells + 2], -1)
    lower = torch.stack([corner, corner + cells + 2, corner + cells + 1], -1)
    faces = torch.cat([upper, lower])[torch.randperm(2 * cells**2, generator=generator)]
    return (low + grid.reshape(1, -1, 3) * (high - low)), faces.int().contiguous()


@pytest.mark.parametrize("cells", [1, 2, 7, 40])
def test_inner_edges_do_not_matter(cells: int) -> None:
    """The sides of a square are as exact as for two faces, its inside untouched, its corners products."""
    vertices, faces = _subdivided(_square(2.3, 3.1, 7.45), cells, cells)
    coverage = _coverage(vertices, faces, (16, 16))[0, 0]
    x, y = torch.zeros(16).double(), torch.zeros(16).double()
    x[2], x[3:10], x[10] = 0.2, 1, 0.25  # from 2.3 to 9.75
    y[3], y[4:11], y[11] = 0.4, 1, 0.05  # from 3.1 to 10.55
    torch.testing.assert_close(coverage[5], x, rtol=0, atol=1e-6)
    torch.testing.assert_close(coverage[:, 5], y, rtol=0, atol=1e-6)
    middle = (slice(4, 11), slice(3, 10))
    torch.testing.assert_close(coverage[middle], torch.ones(7, 7).double(), rtol=0, atol=1e-6)


def test_an_edge_inside_the_surface_is_left_alone() -> None:
    image = torch.rand(1, 2, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vertices = _square(-5.0, -6.0, 30.0)
    index = ops.rasterize(vertices, QUAD, (10, 10)).face_index
    assert index.unique().numel() == 2
    assert torch.equal(ops.antialias(image, vertices, QUAD, index), image)


def _both(op: Any, image: torch.Tensor, vertices: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Values and gradients, of a loss that tells every value from every other."""
    inputs = (image.clone().requires_grad_(), vertices.clone().requires_grad_())
    values = op(*inputs, *rest)
    weights = torch.linspace(-1, 1, values.numel(), dtype=values.dtype, device=values.device).view_as(values)
    return (values.detach(), *torch.autograd.grad((values * weights).sum(), inputs))


def _dense(seed: int) -> tuple[torch.Tensor, ...]:
    """Two heads of faces of a pixel and less, one behind the other, on 12 x 14 pixels."""
    (one, faces), (two, _) = _head(7, 12, 9), _head(7, 12, 12)
    vertices = torch.cat([one, two + torch.tensor([4.0, 1 + 0.1 * seed, 20])], 1)
    faces = torch.cat([faces, faces + one.shape[1]])
    index = ops.rasterize(vertices.float(), faces, (12, 14), cull="clockwise").face_index
    image = torch.rand(1, 2, 12, 14, generator=torch.Generator().manual_seed(seed))
    return image, vertices.float(), faces, index


def _damaged() -> tuple[torch.Tensor, ...]:
    """A sheet with holes: vertices behind the camera or not finite; and faces without area, doubled, three at an edge,
    or with a vertex twice."""
    vertices, faces = _subdivided(_square(0.7, 1.2, 9.1), 9, 0)
    vertices[0, 33, 2] = -1
    vertices[0, 37, 0] = torch.nan
    vertices[0, 66, 1] = torch.inf
    vertices[0, 45] = vertices[0, 46]
    vertices[0, 73] = vertices[0, 63]
    more = torch.tensor([[11, 22, 70], [11, 22, 5], [20, 20, 21], [55, 55, 55]], dtype=torch.int32)
    faces = torch.cat([more, faces, faces[20:30]])
    index = ops.rasterize(vertices.float(), faces, (12, 12)).face_index
    image = torch.rand(1, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    return image, vertices.float(), faces, index


def _stretched(factor: float) -> tuple[torch.Tensor, ...]:
    """An edge through 12 x 14 pixels, and others, rounded to whole pixels: vertices on the rows and columns of pixel
    centres, and far outside of the image."""
    image, vertices, faces, _ = _scene(5, torch.float32)
    middle = vertices[:, :2].mean(1, keepdim=True) * torch.tensor([1, 1, 0])
    vertices = ((vertices - middle) * torch.tensor([factor, factor, 1]) + torch.tensor([7, 6, 1])).round()
    return image, vertices, faces, ops.rasterize(vertices, faces, (12, 14)).face_index


def _dust(seed: int) -> tuple[torch.Tensor, ...]:
    """Squares of 0.1 to 1.2 pixels, most of them round the centre of a pixel, on 12 x 14 pixels."""
    generator = torch.Generator().manual_seed(seed)
    count = 30
    centers = torch.rand(count, 2, generator=generator) * torch.tensor([12.0, 10]) + 0.5
    centers = centers.round() + 0.3 * (torch.rand(count, 2, generator=generator) - 0.5)
    sides = 0.1 + 1.1 * torch.rand(count, 1, 2, generator=generator)
    corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    depth = 5 + torch.rand(count, 1, 1, generator=generator).expand(count, 4, 1)
    vertices = torch.cat([centers[:, None] + sides * corners, depth], -1).reshape(1, -1, 3)
    faces = (torch.arange(count)[:, None, None] * 4 + QUAD).reshape(-1, 3).int()
    index = ops.rasterize(vertices, faces, (12, 14)).face_index
    return torch.rand(1, 2, 12, 14, generator=generator), vertices, faces, index


def test_a_face_without_area_is_no_outline() -> None:
    """Vertex 2 lies on the edge from 0 to 1 of the face on the left; the face of the three fills the crack."""
    points = [(4.3, -9.0), (4.3, 19.0), (4.3, 5.0), (-20.0, 5.0), (30.0, 5.0)]
    vertices = torch.tensor([[(x, y, 5.0) for x, y in points]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 3], [0, 2, 4], [2, 1, 4], [0, 1, 2]], dtype=torch.int32)
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for used, is_open in ((faces, False), (faces[:3], True)):
        index = ops.rasterize(vertices, used, (8, 8)).face_index
        assert bool((index >= 0).all())
        assert torch.equal(ops.antialias(image, vertices, used, index), image) is not is_open


def test_a_surface_is_followed_for_64_faces() -> None:
    """A strip of slivers from pixel (2, 3) towards (3, 3), where the background is."""
    for slivers, blends in ((60, True), (80, False)):
        x = 1.9 + 0.9 * torch.arange(slivers + 1, dtype=torch.float64) / slivers  # to 2.8
        points = torch.stack([x, 3 + 40 * (torch.arange(slivers + 1) % 2 - 0.5), torch.full_like(x, 5)], -1)
        faces = torch.stack([torch.arange(slivers - 1) + k for k in range(3)], -1).int()
        index = ops.rasterize(points[None], faces, (7, 7)).face_index
        assert (index[0, 3] >= 0).tolist() == [False, False, True, False, False, False, False]
        coverage = ops.antialias((index >= 0)[:, None].double(), points[None], faces, index)
        assert (float(coverage[0, 0, 3, 3]) > 0.2) is blends


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twin(seed: int, dtype: torch.dtype) -> None:
    image, vertices, faces, index = _scene(seed, dtype)
    results = [_both(op, image, vertices, faces, index) for op in (ops.antialias, ops.reference.antialias)]
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


@pytest.mark.parametrize(
    "scene",
    [
        *(lambda: _scene(1, torch.float32), lambda: _dense(0), lambda: _dense(1), _damaged),
        *(lambda: _stretched(1.0), lambda: _stretched(30.0), lambda: _stretched(1e5)),
        *(lambda: _dust(0), lambda: _dust(1)),
    ],
)
def test_every_implementation_agrees_with_the_twin(
    kernel_device: torch.device, scene: Callable[[], tuple[torch.Tensor, ...]]
) -> None:
    inputs = [tensor.to(kernel_device) for tensor in scene()]
    ours, twins = (_both(op, *inputs) for op in (ops.antialias, ops.reference.antialias))
    assert not torch.equal(ours[0], inputs[0])
    for our, twin in zip(ours, twins, strict=True):
        torch.testing.assert_close(our, twin, rtol=1e-5, atol=1e-5)


def test_gradcheck() -> None:
    image, vertices, faces, index = _scene(1)
    inputs = (image[:1, :1].clone().requires_grad_(), vertices[:1].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda i, v: ops.antialias(i, v, faces, index[:1]), inputs)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_opcheck_and_compile() -> None:
    image, vertices, faces, index = _scene(2, torch.float32)
    topology = ops.Topology(faces, 8)
    lists = (topology.faces, topology.offsets, topology.corners, topology.neighbors)
    inputs = (image.requires_grad_(), vertices.requires_grad_(), *lists, index)
    torch.library.opcheck(torch.ops.focus.antialias.default, inputs)
    torch.library.opcheck(torch.ops.focus.antialias.default, (*inputs, topology.seams))
    compiled = torch.compile(lambda i, v: ops.antialias(i, v, topology, index), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(image, vertices), ops.antialias(image, vertices, topology, index))


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("left", "top", "width", "height", "area"),
    [
        # Inside of the cell of pixel (4, 4), from 3.5 to 4.5, round its centre and aside.
        *((3.9, 3.9, 0.2, 0.2, 0.04), (3.8, 3.8, 0.4, 0.4, 0.16), (3.6, 3.6, 0.8, 0.8, 0.64)),
        *((3.85, 3.98, 0.2, 0.2, 0.04), (3.61, 3.95, 0.4, 0.4, 0.16), (3.55, 3.68, 0.8, 0.8, 0.64)),
        *((3.995, 3.995, 0.01, 0.01, 1e-4), (3.5, 3.5, 1.0, 1.0, 1.0)),
        *((3.6, 3.95, 0.8, 0.2, 0.16), (3.95, 3.5, 0.1, 1.0, 0.1)),
        # Beyond it: the part in it.
        *((3.9, 3.4, 0.8, 0.8, 0.42), (3.7, 3.9, 2.0, 0.2, 0.16), (3.3, 3.8, 1.4, 4.0, 0.7), (1.0, 1.0, 6.0, 6.0, 1.0)),
    ],
)
def test_a_covered_pixel_has_the_area_of_a_rectangle_in_its_cell(
    module: Any, dtype: torch.dtype, left: float, top: float, width: float, height: float, area: float
) -> None:
    place, size = torch.tensor([left, top, 5.0]).double(), torch.tensor([width, height, 1.0]).double()
    vertices = (place + size * torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]).double())[None].to(dtype)
    index = ops.rasterize(vertices, QUAD, (9, 9)).face_index
    coverage = module.antialias((index >= 0)[:, None].to(dtype), vertices, QUAD, index)[0, 0]
    assert float(coverage[4, 4]) == pytest.approx(area, abs=1e-6)
    if left >= 3.5 and top >= 3.5 and left + width <= 4.5 and top + height <= 4.5:
        assert float(coverage.sum()) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("cells", [1, 7])
def test_the_corners_of_a_square_are_products(cells: int) -> None:
    """From 2.7 to 9.2 and from 2.9 to 9.4: the centres of the pixels 3 to 9 are covered, and no cell beyond theirs."""
    vertices, faces = _subdivided(_square(2.7, 2.9, 6.5), cells, cells)
    x, y = torch.zeros(12).double(), torch.zeros(12).double()
    x[3], x[4:9], x[9] = 0.8, 1, 0.7
    y[3], y[4:9], y[9] = 0.6, 1, 0.9
    coverage = _coverage(vertices, faces, (12, 12))[0, 0]
    torch.testing.assert_close(coverage, torch.outer(y, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize("side", [0.02, 0.3, 0.5, 0.7])
def test_the_sides_of_a_speck_have_the_gradient_of_its_area(module: Any, side: float) -> None:
    """Each moves outwards if more is to be covered, however small the square is."""
    vertices = _square(4 - 0.6 * side, 4 - 0.3 * side, side).requires_grad_()
    index = ops.rasterize(vertices.detach(), QUAD, (9, 9)).face_index
    mask = (index >= 0)[:, None].double()
    (grad,) = torch.autograd.grad(module.antialias(mask, vertices, QUAD, index).sum(), vertices)
    sides = [grad[0, [0, 3], 0], grad[0, [1, 2], 0], grad[0, [0, 1], 1], grad[0, [3, 2], 1]]
    assert [each.sum().item() for each in sides] == pytest.approx([-side, side, -side, side], rel=1e-5)
    assert torch.autograd.gradcheck(lambda v: module.antialias(mask, v, QUAD, index), vertices, eps=1e-7)


@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=60, deadline=None)
def test_values_stay_between_those_of_the_image(seed: int, dtype: torch.dtype) -> None:
    """Each is a mean of a pixel and its neighbours; a mask stays in [0, 1]."""
    image, vertices, faces, index = (t.to(dtype) if t.is_floating_point() else t for t in _dust(seed))
    mask = (index >= 0)[:, None].to(dtype)
    blended = ops.antialias(torch.cat([image, mask, torch.ones_like(mask)], 1), vertices, faces, index)
    around = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    middle, before, after = slice(1, -1), slice(None, -2), slice(2, None)
    places = ((middle, middle), (middle, before), (middle, after), (before, middle), (after, middle))
    cross = torch.stack([around[..., rows, columns] for rows, columns in places])
    assert bool((blended[:, :2] >= cross.amin(0)).all())
    assert bool((blended[:, :2] <= cross.amax(0)).all())
    assert float(blended[:, 2].min()) >= 0
    assert float(blended[:, 2].max()) <= 1
    assert torch.equal(blended[:, 3], torch.ones_like(blended[:, 3]))


def test_a_pixel_with_shares_along_both_axes() -> None:
    """0.3 of each of four leave 0.4 along each axis, 0.16 in all; the other 0.84 is theirs alike."""
    image = torch.arange(81.0, dtype=torch.float64).square().view(1, 1, 9, 9).requires_grad_()
    vertices = _square(3.8, 3.8, 0.4).requires_grad_()
    index = ops.rasterize(vertices.detach(), QUAD, (9, 9)).face_index
    value = ops.antialias(image, vertices, QUAD, index)[0, 0, 4, 4]
    left, right, up, down, own = 39**2, 41**2, 31**2, 49**2, 40**2
    assert value.item() == pytest.approx(0.16 * own + 0.21 * (left + right + up + down))
    of_image, of_vertices = torch.autograd.grad(value, (image, vertices))
    assert of_image[0, 0, 4, 4].item() == pytest.approx(0.16)
    assert of_image[0, 0, [4, 4, 3, 5], [3, 5, 4, 4]].tolist() == pytest.approx([0.21] * 4)
    # Pulling the left side in gives more to the pixel on the left, and takes half of that from those above and below.
    pulled = of_vertices[0, [0, 3], 0].sum().item()
    assert pulled == pytest.approx(0.7 * (left - own) - 0.15 * (up + down - 2 * own), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_specks(seed: int) -> None:
    image, vertices, faces, index = _dust(seed)
    inputs = (image[:, :1].double().requires_grad_(), vertices.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda i, v: ops.antialias(i, v, faces, index), inputs)
    results = [_both(op, *(i.detach() for i in inputs), faces, index) for op in (ops.antialias, reference.antialias)]
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-11, atol=1e-11)


def test_misuse_is_named() -> None:
    image, vertices, faces, index = _scene(0)
    with pytest.raises(TypeError, match="face_index expected int32"):
        ops.antialias(image, vertices, faces, index.long())
    with pytest.raises(ValueError, match="image"):
        ops.antialias(image[..., 1:], vertices, faces, index)


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_vertices_on_pixel_centres_blend_alike_for_every_subdivision_and_face_order(cells: int) -> None:
    """Pixels on the outline belong half to a square, those at its corners a quarter; a side moves its length."""
    line = torch.linspace(2, 6, cells + 1, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    vertices = torch.stack([x, y, torch.ones_like(x)], -1).reshape(1, -1, 3).requires_grad_()
    index = torch.arange(len(line) ** 2).view(len(line), len(line))
    a, b, c, d = (part.flatten() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([b, d, c], -1)])
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[2:7, 3:6] = expected[3:6, 2:7] = 0.5
    expected[3:6, 3:6] = 1.0
    expected[2:7:4, 2:7:4] = 0.25
    for seed in range(4):
        order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
        _, mask, face_index = ops.render(vertices.detach(), vertices.detach(), faces[order], (9, 9))
        for module in (ops, reference):
            blended = module.antialias(mask, vertices, faces[order], face_index)
            assert torch.equal(blended[0, 0], expected)
            (gradient,) = torch.autograd.grad(blended.sum(), vertices)
            for axis, sign, end in ((0, -1, 2), (0, 1, 6), (1, -1, 2), (1, 1, 6)):
                side = vertices[0, :, axis] == end
                assert gradient[0, side, axis].sum().item() == pytest.approx(4 * sign)


def test_a_topology_keeps_no_neighbors_that_only_stand_for_tensors() -> None:
    topology = ops.Topology(torch.tensor([[0, 1, 2], [2, 1, 3]]), 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(topology.neighbors, FakeTensor)
    assert topology.neighbors.tolist() == [3 + 2, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seams_that_are_kept_change_no_bit(dtype: torch.dtype) -> None:
    image, vertices, faces, index = _scene(3, dtype)
    topology = ops.Topology(faces, vertices.shape[1])
    mesh = (topology.faces, topology.offsets, topology.corners, topology.neighbors)
    found, kept = (torch.ops.focus.antialias(image, vertices, *mesh, index, seams) for seams in (None, topology.seams))
    assert torch.equal(found[0], kept[0])
    assert torch.equal(found[1], kept[1])
    assert not torch.equal(found[0], image)


@pytest.mark.parametrize("row", [(-1, -1, 1), (10**6, -1, 1), (0, -2, 1), (0, 10**6, 1)])
def test_seams_of_another_mesh_are_refused(row: tuple[int, int, int]) -> None:
    image, vertices, faces, index = _scene(3)
    topology = ops.Topology(faces, vertices.shape[1])
    mesh = (topology.faces, topology.offsets, topology.corners, topology.neighbors)
    wrong = torch.tensor([row], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"seams.*corners or faces that the mesh does not have"):
        torch.ops.focus.antialias(image, vertices, *mesh, index, wrong)
