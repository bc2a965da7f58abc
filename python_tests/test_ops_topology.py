"""Checked faces and their vertex-to-face lists."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from focus import ops
from focus.ops.topology import _sorted


def _lists(topology: ops.Topology) -> list[list[int]]:
    offsets, corners = topology.offsets.tolist(), topology.corners.tolist()
    return [corners[a:b] for a, b in itertools.pairwise(offsets)]


def test_corners_of_each_vertex_ascend(device: torch.device) -> None:
    topology = ops.Topology(torch.tensor([[2, 0, 1], [0, 2, 4], [0, 0, 2]], device=device), 5)
    assert _lists(topology) == [[1, 3, 6, 7], [2], [0, 4, 8], [], [5]]
    assert topology.faces.dtype == topology.offsets.dtype == topology.corners.dtype == torch.int32
    assert topology.vertex_count == 5


@given(st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), max_size=12))
@settings(max_examples=40, deadline=None)
def test_every_corner_is_listed_once_at_its_vertex(faces: list[list[int]]) -> None:
    """By the counting sort of the CPU, and by the way through torch that CUDA takes."""
    flat = [v for face in faces for v in face]
    topology = ops.Topology(torch.tensor(faces, dtype=torch.int64).reshape(-1, 3), 7)
    assert _lists(topology) == [[i for i, v in enumerate(flat) if v == vertex] for vertex in range(7)]
    invalid, offsets, corners = _sorted(topology.faces, 7)
    assert invalid == 0
    assert offsets.dtype == corners.dtype == torch.int32
    assert torch.equal(offsets, topology.offsets)
    assert torch.equal(corners, topology.corners)
    assert _sorted(topology.faces, 5)[0] == sum(v >= 5 for v in flat)


@pytest.mark.parametrize("vertex_count", [0, 3])
def test_no_faces(device: torch.device, vertex_count: int) -> None:
    topology = ops.Topology(torch.zeros(0, 3, dtype=torch.int32, device=device), vertex_count)
    assert topology.offsets.tolist() == [0] * (vertex_count + 1)
    assert topology.corners.shape == (0,)


def test_the_topology_keeps_its_own_faces() -> None:
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int64)
    topology = ops.Topology(faces, 3)
    faces.fill_(99)
    assert topology.faces.tolist() == [[0, 1, 2]]
    narrow = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    topology = ops.Topology(narrow, 3)
    narrow.fill_(99)
    assert topology.faces.tolist() == [[0, 1, 2]]


def test_moves_and_copies(device: torch.device) -> None:
    topology = ops.Topology(torch.tensor([[0, 1, 2]]), 3)
    assert topology.to("cpu") is topology
    moved = topology.to(device)
    assert moved.faces.device.type == moved.corners.device.type == device.type
    assert _lists(moved) == _lists(copy.deepcopy(topology)) == [[0], [1], [2]]
    assert repr(topology) == "Topology(faces=1, vertices=3, device=cpu)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"faces": [[0, 1, 2]]}, TypeError, "Topology: faces expected a torch.Tensor, got list"),
        ({"faces": torch.ones(1, 4).int()}, ValueError, r"faces expected shape \[F, 3\], got \[1, 4\]"),
        ({"faces": torch.ones(1, 3).short()}, TypeError, "faces expected int32 or int64, got torch.int16"),
        ({"faces": torch.tensor([[0, 1, 3]])}, ValueError, r"1 of 3 entries of faces lie outside \[0, 3\).*largest 3"),
        ({"faces": torch.tensor([[-1, 0, 1]])}, ValueError, r"1 of 3 entries.*smallest -1"),
        ({"faces": torch.tensor([[0, 1, 2**32]])}, ValueError, "1 of 3 entries"),
        ({"vertex_count": -1}, ValueError, "vertex_count expected an integer >= 0, got -1"),
        ({"vertex_count": 2.0}, ValueError, "vertex_count expected an integer >= 0, got 2.0"),
    ],
)
def test_errors_name_what_was_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {"faces": torch.tensor([[0, 1, 2]]), "vertex_count": 3}
    with pytest.raises(error, match=message):
        ops.Topology(**{**valid, **arguments})


def test_neighbors_are_circles_around_the_edges(device: torch.device) -> None:
    """Three faces at the edge 0-1, two at 1-2, a face with a vertex twice; all other edges are borders."""
    faces = torch.tensor([[0, 1, 2], [1, 0, 3], [4, 0, 1], [2, 1, 5], [6, 6, 7]], device=device)
    expected = list(range(15))
    expected[2], expected[5], expected[6] = 5, 6, 2
    expected[0], expected[11] = 11, 0
    expected[12], expected[13] = 13, 12
    assert ops.Topology(faces, 8).neighbors.tolist() == expected
    assert ops.Topology(faces, 8).neighbors.dtype == torch.int32
    assert ops.Topology(faces[:0], 8).neighbors.tolist() == []


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=12))
@settings(max_examples=40, deadline=None)
def test_every_circle_holds_the_corners_of_one_edge_in_their_order(rows: list[list[int]]) -> None:
    corners: dict[tuple[int, ...], list[int]] = {}
    for face, row in enumerate(rows):
        for k in range(3):
            corners.setdefault(tuple(sorted((row[k - 2], row[k - 1]))), []).append(3 * face + k)
    neighbors = ops.Topology(torch.tensor(rows, dtype=torch.int32).reshape(-1, 3), 6).neighbors.tolist()
    for edge in corners.values():
        assert [neighbors[corner] for corner in edge] == [*edge[1:], edge[0]]


def test_seams_are_the_edges() -> None:
    """A square of two triangles, the same with one of them turned over, three faces at an edge, and none."""
    square = torch.tensor([[0, 1, 2], [2, 1, 3]])
    # Corner 0 lies opposite of the edge 1 2 that both share; each of the other four edges is a border.
    assert ops.Topology(square, 4).seams.tolist() == [[0, 1, 1], [1, -1, 1], [2, -1, 1], [3, -1, 1], [4, -1, 1]]
    turned = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert ops.Topology(turned, 4).seams.tolist()[0] == [0, 1, -1]
    fan = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    assert [row for row in ops.Topology(fan, 5).seams.tolist() if row[0] % 3 == 2] == [[k, -1, 1] for k in (2, 5, 8)]
    assert ops.Topology(square[:0], 4).seams.tolist() == []


def test_seams_are_found_once_and_only_where_they_can_be_kept() -> None:
    topology = ops.Topology(torch.tensor([[0, 1, 2], [2, 1, 3]]), 4)
    with torch.inference_mode():
        seams = topology.seams
    assert seams is topology.seams
    assert not seams.is_inference()
    assert topology.to("cpu").seams is seams
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert ops.Topology(torch.tensor([[0, 1, 2], [2, 1, 3]]), 4).seams is None
