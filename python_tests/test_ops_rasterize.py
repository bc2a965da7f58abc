"""Rasterization, checked against pictures drawn by hand, properties, and the faults of other rasterizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from focus import ops
from focus.ops import reference

NAN, INF = float("nan"), float("inf")

# No rotation or reflection of the grid maps it to itself. Its vertices are pixel centres, and covered.
TRIANGLE = [(1.0, 1.0), (8.0, 2.0), (3.0, 8.0)]
DRAWING = """
..........
.#........
..#######.
..######..
..#####...
...###....
...##.....
...#......
...#......
..........
"""


def _screen(points: list[tuple[float, ...]], depth: float = 10.0) -> torch.Tensor:
    """[1, V, 3]; points without z lie at `depth`."""
    return torch.tensor([[(*p, depth) if len(p) == 2 else p for p in points]], dtype=torch.float32)


def _rasterize(
    device: torch.device, points: list[tuple[float, ...]], faces: list[list[int]], size: tuple[int, int], **options: Any
) -> ops.Fragments:
    index = torch.tensor(faces, dtype=torch.int32, device=device).reshape(-1, 3)
    return ops.rasterize(_screen(points).to(device), index, size, **options)


def _drawing(face_index: torch.Tensor) -> str:
    return "\n" + "".join("".join(".#"[int(f >= 0)] for f in row) + "\n" for row in face_index.tolist())


QUAD = [[0, 1, 2], [0, 2, 3]]


def _quad(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, ...]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def test_drawing(kernel_device: torch.device) -> None:
    fragments = _rasterize(kernel_device, TRIANGLE, [[0, 1, 2]], (10, 10))
    assert _drawing(fragments.face_index[0]) == DRAWING
    assert (
        _drawing(reference.rasterize(_screen(TRIANGLE), torch.tensor([[0, 1, 2]]), (10, 10)).face_index[0]) == DRAWING
    )


def test_rows_run_down_and_columns_right_in_an_image_that_is_not_square(kernel_device: torch.device) -> None:
    fragments = _rasterize(kernel_device, _quad(1, 2, 4, 3), QUAD, (5, 9))
    assert _drawing(fragments.face_index[0]) == "\n.........\n.........\n.####....\n.####....\n.........\n"


def test_barycentrics_weigh_the_vertices_of_the_face_in_its_order(kernel_device: torch.device) -> None:
    order = [2, 0, 1]
    fragments = _rasterize(kernel_device, TRIANGLE, [order], (10, 10))
    for corner, vertex in enumerate(order):
        x, y = TRIANGLE[vertex]
        assert fragments.barycentric[0, int(y), int(x)].tolist() == [float(k == corner) for k in range(3)]
    y, x = (fragments.face_index[0] >= 0).nonzero(as_tuple=True)
    points = torch.tensor([TRIANGLE[vertex] for vertex in order], device=kernel_device)
    torch.testing.assert_close(fragments.barycentric[0, y, x] @ points, torch.stack([x, y], -1).float())


def test_background_is_minus_one_and_zero(kernel_device: torch.device) -> None:
    fragments = _rasterize(kernel_device, TRIANGLE, [[0, 1, 2]], (10, 10))
    empty = fragments.face_index < 0
    assert (fragments.face_index[empty] == -1).all()
    assert (fragments.depth[empty] == 0).all()
    assert (fragments.barycentric[empty] == 0).all()
    assert fragments.face_index.dtype == torch.int32


@pytest.mark.parametrize("diagonal", [[[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]]])
def test_edges_on_pixel_centres_belong_to_the_faces(kernel_device: torch.device, diagonal: list[list[int]]) -> None:
    """Corners on the centres 4 and 60, diagonal through centres: 57 x 57 pixels, the diagonal to the first face."""
    face_index = _rasterize(kernel_device, _quad(4, 4, 60, 60), diagonal, (64, 64)).face_index[0]
    assert int((face_index >= 0).sum()) == 57 * 57 == 3249
    assert int((face_index == 0).sum()) == 57 * 58 // 2


def test_a_box_that_ends_at_a_multiple_of_a_block_keeps_its_last_column(kernel_device: torch.device) -> None:
    """Columns 11 to 32, rows 4 to 43; the paper's renderer loses column 32 and finds 840."""
    face_index = _rasterize(kernel_device, _quad(10.6, 3.4, 32.6, 43.4), QUAD, (48, 48)).face_index[0]
    assert int((face_index >= 0).sum()) == 22 * 40 == 880


def test_a_face_without_area_changes_nothing(kernel_device: torch.device) -> None:
    points = [*TRIANGLE, (2.0, 2.0), (4.0, 4.0), (8.0, 8.0)]
    plain = _rasterize(kernel_device, points, [[0, 1, 2]], (10, 10))
    for flat in ([3, 4, 5], [3, 3, 4], [3, 3, 3], [0, 0, 1]):
        vertices = _screen(points).to(kernel_device).requires_grad_()
        faces = torch.tensor([flat, [0, 1, 2]], device=kernel_device)
        fragments = ops.rasterize(vertices, faces, (10, 10))
        assert torch.equal(fragments.face_index, torch.where(plain.face_index < 0, -1, 1).int())
        assert torch.equal(fragments.barycentric, plain.barycentric)
        (fragments.barycentric.square().sum() + fragments.depth.sum()).backward()
        assert vertices.grad is not None
        assert vertices.grad.isfinite().all()


def test_faces_much_smaller_than_a_pixel(kernel_device: torch.device) -> None:
    """A sheet of faces of 0.01 square pixels covers every pixel, and a constant stays constant."""
    step, count = 0.1414, 38
    grid = [(-0.1 + step * i, -0.1 + step * j) for j in range(count) for i in range(count)]
    corners = [j * count + i for j in range(count - 1) for i in range(count - 1)]
    faces = [f for v in corners for f in ([v, v + 1, v + count], [v + 1, v + count + 1, v + count])]
    fragments = _rasterize(kernel_device, grid, faces, (6, 6))
    assert (fragments.face_index >= 0).all()
    ones = torch.ones(1, count * count, 1, device=kernel_device)
    values = ops.interpolate(ones, torch.tensor(faces, device=kernel_device), fragments)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=2e-7)  # three roundings of 2^-24 and a sum


def test_ties_go_to_the_lower_face_index(kernel_device: torch.device) -> None:
    twice = _rasterize(kernel_device, [*TRIANGLE, *TRIANGLE], [[3, 4, 5], [0, 1, 2], [1, 2, 0]], (10, 10))
    assert (twice.face_index[twice.face_index >= 0] == 0).all()


def test_the_nearest_face_wins(kernel_device: torch.device) -> None:
    """Two squares that cross at x = 4.5: each is nearest on its side."""
    points = [(0.0, 0.0, 5.0), (9.0, 0.0, 14.0), (9.0, 9.0, 14.0), (0.0, 9.0, 5.0)]
    points += [(x, y, 19.0 - z) for x, y, z in points]
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    fragments = _rasterize(kernel_device, points, faces, (10, 10))
    assert (fragments.face_index[0, :, :5] < 2).all()
    assert (fragments.face_index[0, :, 5:] >= 2).all()
    assert fragments.depth[0, 3].tolist() == [5, 6, 7, 8, 9, 9, 8, 7, 6, 5]


@pytest.mark.parametrize(
    "bad",
    [(NAN, 1.0, 5.0), (1.0, NAN, 5.0), (INF, 1.0, 5.0), (1.0, -INF, 5.0)]
    + [(1.0, 1.0, z) for z in (NAN, INF, -INF, 0.0, -3.0)],
)
def test_a_bad_vertex_removes_its_faces_and_nothing_else(kernel_device: torch.device, bad: tuple[float, ...]) -> None:
    points = [*TRIANGLE, bad]
    vertices = _screen(points).to(kernel_device).requires_grad_()
    fragments = ops.rasterize(vertices, torch.tensor([[0, 1, 3], [0, 1, 2]], device=kernel_device), (10, 10))
    plain = _rasterize(kernel_device, TRIANGLE, [[0, 1, 2]], (10, 10))
    assert torch.equal(fragments.face_index, torch.where(plain.face_index < 0, -1, 1).int())
    assert torch.equal(fragments.depth, plain.depth)
    fragments.depth.sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
    assert (vertices.grad[0, 3] == 0).all()


@pytest.mark.parametrize(("cull", "visible"), [("none", (0, 1)), ("clockwise", (1,)), ("counterclockwise", (0,))])
def test_culling(kernel_device: torch.device, cull: ops.rasterize.Cull, visible: tuple[int, ...]) -> None:
    """Left top, right top, left bottom runs clockwise on the screen, where y points down."""
    points = [(0.0, 0.0), (3.0, 0.0), (0.0, 3.0), (6.0, 0.0), (9.0, 0.0), (6.0, 3.0)]
    found = _rasterize(kernel_device, points, [[0, 1, 2], [3, 5, 4]], (4, 10), cull=cull).face_index
    assert tuple(found.unique().tolist()) == (-1, *visible)


def test_perspective_is_the_plane_in_space(kernel_device: torch.device) -> None:
    """The ray (x, y, 1) t meets the plane n . p = d at t = d / (n . (x, y, 1)), and interpolated points lie there."""
    space = torch.tensor([[1.0, 2.0, 1.0], [18.0, 4.0, 2.5], [9.0, 24.0, 3.0]])
    screen = torch.cat([space[:, :2] / space[:, 2:], space[:, 2:]], 1)[None].to(kernel_device)
    faces = torch.tensor([[0, 1, 2]], device=kernel_device)
    fragments = ops.rasterize(screen, faces, (10, 10), perspective_correct=True)
    b, y, x = (fragments.face_index >= 0).nonzero(as_tuple=True)
    assert len(b) > 10
    normal = torch.linalg.cross(space[1] - space[0], space[2] - space[0])
    rays = torch.stack([x, y, torch.ones_like(x)], -1).float().cpu()
    depth = (normal @ space[0]) / (rays @ normal)
    torch.testing.assert_close(fragments.depth[b, y, x].cpu(), depth, rtol=1e-5, atol=0)
    where = ops.interpolate(space[None].to(kernel_device), faces, fragments)[b, :, y, x].cpu()
    torch.testing.assert_close(where, rays * depth[:, None], rtol=1e-5, atol=1e-5)


def test_parts_outside_the_image_and_behind_the_camera(kernel_device: torch.device) -> None:
    outside = [
        _quad(-20, 0, -10, 9),
        _quad(20, 0, 30, 9),
        _quad(0, -20, 9, -10),
        _quad(0, 20, 9, 30),
        _quad(9.2, 0, 9.8, 9),
    ]
    for quad in outside:
        assert (_rasterize(kernel_device, quad, QUAD, (10, 10)).face_index == -1).all()
    assert (_rasterize(kernel_device, _quad(-5, -5, 20, 20), QUAD, (10, 10)).face_index >= 0).all()
    behind = [(x, y, -10.0) for x, y in _quad(0, 0, 9, 9)]
    assert (_rasterize(kernel_device, behind, QUAD, (10, 10)).face_index == -1).all()


@pytest.mark.parametrize("far", [1e10, 1e30, 3e38])
def test_huge_coordinates(kernel_device: torch.device, far: float) -> None:
    points = [(-far, -far), (far, -far), (0.0, far), (4.0, 4.0, 1e-30), (5.0, 4.0, 1e-30), (4.0, 5.0, 3e38)]
    vertices = _screen(points).to(kernel_device).requires_grad_()
    fragments = ops.rasterize(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]], device=kernel_device), (10, 10))
    assert int((fragments.face_index == 0).sum()) == 98
    assert int((fragments.face_index == 1).sum()) == 2  # the third lies behind the large face
    assert (fragments.depth > 0).all()
    assert fragments.barycentric.isfinite().all()
    fragments.barycentric.square().sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()


def test_depth_stays_between_the_depths_of_the_vertices(kernel_device: torch.device) -> None:
    """Where the depths differ by 60 orders of magnitude, rounding alone would carry it below zero."""
    points = [(0.0, 0.0, 1e30), (7.0, 1.0, 1e-30), (3.0, 9.0, 1e-30)]
    fragments = _rasterize(kernel_device, points, [[0, 1, 2]], (10, 10))
    covered = fragments.depth[fragments.face_index >= 0]
    assert len(covered) > 20
    assert (covered >= 1e-30 * (1 - 1e-6)).all()
    assert (covered <= 1e30 * (1 + 1e-6)).all()


@pytest.mark.parametrize("size", [(0, 0), (0, 7), (7, 0), (1, 1), (1, 12), (12, 1)])
def test_small_images(kernel_device: torch.device, size: tuple[int, int]) -> None:
    vertices = _screen(_quad(-1, -1, 20, 20)).to(kernel_device).requires_grad_()
    fragments = ops.rasterize(vertices, torch.tensor(QUAD, device=kernel_device), size)
    assert fragments.face_index.shape == (1, *size)
    assert (fragments.face_index >= 0).all()
    (fragments.barycentric[..., 0].sum() + fragments.depth.sum()).backward()
    assert vertices.grad is not None
    assert vertices.grad.shape == vertices.shape


@pytest.mark.parametrize("vertex_count", [0, 3])
def test_meshes_without_faces_or_vertices(kernel_device: torch.device, vertex_count: int) -> None:
    vertices = torch.ones(2, vertex_count, 3, device=kernel_device, requires_grad=True)
    faces = torch.zeros(0, 3, dtype=torch.int64, device=kernel_device)
    fragments = ops.rasterize(vertices, faces, (4, 5))
    assert (fragments.face_index == -1).all()
    fragments.depth.sum().backward()
    assert vertices.grad is not None
    assert (vertices.grad == 0).all()


def test_index_types_and_topologies_are_equal(kernel_device: torch.device) -> None:
    vertices = _screen(_quad(0.5, 0.5, 8, 8)).to(kernel_device)
    faces = torch.tensor(QUAD, device=kernel_device)
    expected = ops.rasterize(vertices, faces.int(), (10, 10))
    strided = torch.tensor(QUAD, device=kernel_device).T.contiguous().T
    for same in (faces, strided, ops.Topology(faces, 4), ops.Topology(strided.int(), 4)):
        for a, b in zip(ops.rasterize(vertices, same, (10, 10)), expected, strict=True):
            assert torch.equal(a, b)


def _grid_mesh(heights: list[list[int]], divisor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A 5x5 sheet over [0, 12]^2 whose inner vertices are moved by heights / divisor pixels, and its faces."""
    y, x = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    points = torch.stack([x, y], -1).float() * 3
    points[1:-1, 1:-1] += torch.tensor(heights).reshape(3, 3, 2) / divisor
    faces = [f for j in range(4) for v in range(5 * j, 5 * j + 4) for f in ([v, v + 1, v + 5], [v + 1, v + 6, v + 5])]
    return torch.cat([points.reshape(25, 2), torch.full((25, 1), 10.0)], 1)[None], torch.tensor(faces)


moves = st.lists(st.lists(st.integers(-8, 8), min_size=2, max_size=2), min_size=9, max_size=9)


@given(moves, st.sampled_from([1, 4, 8, 7, 16]))
@settings(max_examples=60, deadline=None)
def test_sheets_have_no_holes(heights: list[list[int]], divisor: int) -> None:
    """On and near the pixel grid, folded over itself or not: every pixel inside the rim is found."""
    vertices, faces = _grid_mesh(heights, divisor)
    assert (ops.rasterize(vertices, faces, (13, 13)).face_index >= 0).all()


def test_edges_that_miss_a_pixel_by_less_than_a_rounding(kernel_device: torch.device) -> None:
    """Two faces on the edge from (a, a + ulps) to (6, 6), which passes the diagonal pixels at 1e-17 or so: each is
    found in one of the faces, though neither can tell on which side it lies."""
    generator = torch.Generator().manual_seed(0)
    count = 64
    a = 10 ** (torch.rand(count, generator=generator) * 4 - 11)
    ulp = torch.nextafter(a, torch.tensor(1.0)) - a
    points = torch.tensor([(0.0, 0.0, 10.0), (6.0, 6.0, 10.0), (7.0, 0.0, 10.0), (0.0, 7.0, 10.0)]).repeat(count, 1, 1)
    points[:, 0, 0], points[:, 0, 1] = a, a + ulp * torch.randint(-3, 4, (count,), generator=generator)
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]], device=kernel_device)
    found = ops.rasterize(points.to(kernel_device), faces, (8, 8)).face_index
    assert (found.diagonal(dim1=1, dim2=2)[:, 1:7] >= 0).all()


@given(moves, st.integers(0, 5), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_invariances(heights: list[list[int]], right: int, down: int, random: Any) -> None:
    """Translation by whole pixels moves the picture; new numbers for the vertices and rolled batches change nothing."""
    vertices, faces = _grid_mesh(heights, 8)
    expected = ops.rasterize(vertices, faces, (13, 13))
    moved = ops.rasterize(vertices + torch.tensor([right, down, 0]), faces, (13 + down, 13 + right))
    assert torch.equal(moved.face_index[:, down:, right:], expected.face_index)
    order = list(range(25))
    random.shuffle(order)
    renumbered = torch.empty_like(vertices)
    renumbered[:, order] = vertices
    for a, b in zip(ops.rasterize(renumbered, torch.tensor(order)[faces], (13, 13)), expected, strict=True):
        assert torch.equal(a, b)


@given(st.integers(0, 10_000), st.sampled_from(["none", "clockwise", "counterclockwise"]), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_meshes_against_the_twin(seed: int, cull: Any, perspective_correct: bool) -> None:
    """Both in double precision and from the same edge functions: the same faces everywhere, but for depths that tie."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 12, 3, generator=generator) * torch.tensor([14.0, 12.0, 9.0]) + torch.tensor(
        [-2.0, -2.0, -1.0]
    )
    faces = torch.randint(0, 12, (15, 3), generator=generator)
    options = {"cull": cull, "perspective_correct": perspective_correct}
    actual, expected = (
        ops.rasterize(vertices, faces, (8, 10), **options),
        reference.rasterize(vertices, faces, (8, 10), **options),
    )
    assert torch.equal(actual.face_index, expected.face_index)
    torch.testing.assert_close(actual.depth, expected.depth, rtol=1e-6, atol=0)
    torch.testing.assert_close(actual.barycentric, expected.barycentric, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("perspective_correct", [False, True])
def test_neither_vector_code_nor_threads_change_a_bit(
    dtype: torch.dtype, perspective_correct: bool, every_vector_code: list[Callable[[], None]]
) -> None:
    """Small faces, large ones, slivers, equal depths, corners on pixel centres, and numbers that no camera yields."""
    generator = torch.Generator().manual_seed(2)
    size, corners = (47, 61), 90
    points = torch.rand(2, corners, 3, generator=generator, dtype=dtype)
    points = points * points.new_tensor([80, 70, 5]) + points.new_tensor([-10, -10, 0.5])
    points[:, ::3] = points[:, ::3].round()
    near = torch.arange(0, corners, 3)
    points[:, near + 1] = points[:, near] + torch.rand(2, len(near), 3, generator=generator, dtype=dtype)
    points[0, 3, 0], points[0, 8, 1], points[1, 4, 2], points[1, 10:14] = NAN, INF, -1.0, 1e30
    faces = torch.cat(
        [torch.arange(corners).reshape(-1, 3), torch.randint(corners, (80, 3), generator=generator)]
    )  # slivers, most of the first; a corner that is named twice leaves no area
    before, results = torch.get_num_threads(), []
    for choose in every_vector_code:
        choose()
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for cull in ("none", "clockwise"):
                results.append(ops.rasterize(points, faces, size, cull=cull, perspective_correct=perspective_correct))
    torch.set_num_threads(before)
    for i, result in enumerate(results):
        assert all(torch.equal(a, b) for a, b in zip(result, results[i % 2], strict=True))
    expected = reference.rasterize(points, faces, size, perspective_correct=perspective_correct)
    assert torch.equal(results[0].face_index, expected.face_index)


def test_a_face_that_no_pixel_shows_has_no_gradient(kernel_device: torch.device) -> None:
    points = [*_quad(0, 0, 9, 9), (1.0, 1.0, 20.0), (8.0, 2.0, 20.0), (3.0, 8.0, 20.0)]
    vertices = _screen(points).to(kernel_device).requires_grad_()
    fragments = ops.rasterize(vertices, torch.tensor([[4, 5, 6], *QUAD], device=kernel_device), (10, 10))
    fragments.depth.sum().backward()
    assert vertices.grad is not None
    assert (vertices.grad[0, 4:] == 0).all()
    assert float(vertices.grad[0, :4, 2].sum()) == pytest.approx(100)


def test_many_large_faces_add_up_in_one_order(kernel_device: torch.device) -> None:
    """More large boxes than the list of pieces holds (csrc/common/pixel_boxes.h), however the threads race for it."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(1, 36, 3, generator=generator) * torch.tensor([40.0, 40.0, 9.0]) + torch.tensor(
        [-8.0, -8.0, 1.0]
    )
    faces = torch.arange(36).reshape(12, 3).to(kernel_device)
    results = []
    for _ in range(4):
        vertices = points.to(kernel_device).requires_grad_()
        fragments = ops.rasterize(vertices, faces, (24, 24))
        (fragments.barycentric * torch.arange(3, device=kernel_device)).sum().backward()
        results.append(vertices.grad)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"screen_vertices": [1.0]}, TypeError, "rasterize: screen_vertices expected a torch.Tensor, got list"),
        (
            {"screen_vertices": torch.ones(4, 3)},
            ValueError,
            r"screen_vertices expected shape \[B, V, 3\], got \[4, 3\]",
        ),
        ({"screen_vertices": torch.ones(1, 4, 2)}, ValueError, r"screen_vertices expected shape \[B, V, 3\]"),
        (
            {"screen_vertices": torch.ones(1, 4, 3).int()},
            TypeError,
            "screen_vertices expected a floating dtype, got torch.int32",
        ),
        ({"faces": torch.ones(2, 3)}, TypeError, "faces expected int32 or int64, got torch.float32"),
        ({"faces": torch.ones(3, dtype=torch.int64)}, ValueError, r"faces expected shape \[F, 3\], got \[3\]"),
        ({"faces": torch.tensor([[0, 1, 4]])}, ValueError, r"1 of 3 entries of faces lie outside \[0, 4\)"),
        ({"faces": torch.tensor([[0, -1, 2**40]])}, ValueError, r"2 of 3 entries of faces lie outside \[0, 4\)"),
        ({"faces": ops.Topology(torch.tensor(QUAD), 5)}, ValueError, "the topology is of 5 vertices, and 4 came"),
        ({"faces": torch.zeros(1, 3, dtype=torch.int32, device="meta")}, ValueError, "faces are on meta"),
        ({"image_size": 8}, TypeError, r"image_size expected two integers \(H, W\), got 8"),
        ({"image_size": (8, 8.0)}, TypeError, r"image_size expected two integers \(H, W\), got \(8, 8.0\)"),
        ({"image_size": (8, -1)}, ValueError, r"image_size expected \(H, W\) >= 0, got \(8, -1\)"),
        ({"cull": "back"}, ValueError, "cull expected one of none, clockwise, counterclockwise, got 'back'"),
        ({"perspective_correct": "no"}, ValueError, "perspective_correct expected one of False, True, got 'no'"),
    ],
)
def test_errors_name_what_was_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {"screen_vertices": _screen(_quad(0, 0, 9, 9)), "faces": torch.tensor(QUAD), "image_size": (8, 8)}
    with pytest.raises(error, match=message):
        ops.rasterize(**{**valid, **arguments})
