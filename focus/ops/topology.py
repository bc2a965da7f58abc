"""Triangles that were checked once, with the vertex-to-face lists that the gathering gradients need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from focus.isolation import own_state
from focus.ops import _check, _native


def _build(faces: torch.Tensor, vertex_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    invalid, offsets, corners = (_sorted if faces.is_cuda else _counted)(faces, vertex_count)
    if invalid:
        raise ValueError(
            f"focus.ops.Topology: {invalid} of {faces.numel()} entries of faces lie outside [0, {vertex_count}), "
            f"the vertices of the mesh (smallest {int(faces.min())}, largest {int(faces.max())})"
        )
    return offsets, corners


def _counted(faces: torch.Tensor, vertex_count: int) -> tuple[int, torch.Tensor, torch.Tensor]:
    offsets, corners = faces.new_empty(vertex_count + 1), faces.new_empty(faces.numel())
    memory = (_native.to_dlpack(tensor) for tensor in (faces, offsets, corners))
    invalid: int = _native.module.build_topology(next(memory), vertex_count, *memory)
    return invalid, offsets, corners


def _sorted(faces: torch.Tensor, vertex_count: int) -> tuple[int, torch.Tensor, torch.Tensor]:
    """The same by a stable sort, for CUDA. Reading the number of invalid entries is its one synchronisation."""
    vertices, corners = faces.flatten().sort(stable=True)
    firsts = torch.arange(vertex_count + 1, dtype=torch.int32, device=faces.device)
    offsets = torch.searchsorted(vertices, firsts, out_int32=True)
    invalid = int(((vertices < 0) | (vertices >= vertex_count)).sum())
    return invalid, offsets, corners.int()


def _build_fake(faces: torch.Tensor, vertex_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return faces.new_empty(vertex_count + 1), faces.new_empty(faces.numel())


def _no_gradient(ctx: Any, *grads: Any) -> tuple[None, None]:
    return None, None


_build_topology = _native.define(
    "build_topology(Tensor faces, SymInt vertex_count) -> (Tensor, Tensor)", _build, _build_fake, backward=_no_gradient
)


def _find_neighbors(faces: torch.Tensor, vertex_count: int) -> torch.Tensor:
    """See `Topology.neighbors`: the corners sorted by their edges, where each run is a circle."""
    first, second = faces.roll(-1, dims=1).flatten().long(), faces.roll(-2, dims=1).flatten().long()
    edges = torch.minimum(first, second) * vertex_count + torch.maximum(first, second)
    edges, order = edges.sort(stable=True)
    place = torch.arange(len(edges), dtype=torch.int64, device=faces.device)
    ends = torch.ones_like(place, dtype=torch.bool)  # of runs
    ends[:-1] = edges[1:] != edges[:-1]
    begins = torch.where(ends.roll(1), place, 0).cummax(0).values
    return torch.empty_like(order).scatter(0, order, order[torch.where(ends, begins, place + 1)]).int()


@contextmanager
def _lasting() -> Iterator[None]:
    """For tensors that outlive a call: ordinary ones, whatever the mode and the transform that they are made in."""
    with own_state(grad=False), torch._C._DisableFuncTorch():
        yield


def can_be_kept(tensor: torch.Tensor) -> bool:
    """Whether a tensor that was made in one call may be used in the next.

    Not what stands for a tensor while torch traces or transforms a function, and not memory that a CUDA graph fills
    only when it is replayed.
    """
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
    )


class Topology:
    """The faces of a mesh, validated, with the list of faces at every vertex.

    Every op that takes faces takes a Topology in their place. Build it once for a mesh: plain faces are checked and
    listed anew in each call, which on CUDA costs a synchronisation.

    Args:
        faces: `[F, 3]` int32 or int64, vertex indices; counterclockwise seen from outside by convention.
        vertex_count: V, the number of vertices of the mesh.

    Attributes:
        faces: `[F, 3]` int32, contiguous.
        vertex_count: V.
        offsets: `[V + 1]` int32; the corners of vertex v are ``corners[offsets[v]:offsets[v + 1]]``.
        corners: `[3 F]` int32; ``3 * face + corner``, ascending for each vertex.
        neighbors: `[3 F]` int32; for each corner ``3 * face + corner``, and the edge that it lies opposite of, the next
            corner that lies so, in a circle: itself at a border of the mesh. Found when first asked for.
        seams: `[S, 3]` int32, or None where the mesh is not on the CPU or they cannot be kept (in a compiled function):
            the edges that `antialias` looks at, each as the corner opposite of it, the face beyond it (-1 where there
            is none or more than one), and -1 where both faces run along it the same way, else 1. Found when first asked
            for.

    >>> topology = ops.Topology(torch.tensor([[0, 1, 2], [2, 1, 3]]), vertex_count=4)
    >>> topology
    Topology(faces=2, vertices=4, device=cpu)
    >>> topology.offsets.tolist(), topology.corners.tolist()
    ([0, 1, 3, 5, 6], [0, 1, 4, 2, 3, 5])

    Raises:
        TypeError: faces are not an int32 or int64 tensor.
        ValueError: faces are not `[F, 3]`, or an index lies outside [0, V).
    """

    # Of the class: not all that were ever saved have them.
    _neighbors: torch.Tensor | None = None
    _seams: torch.Tensor | None = None

    def __init__(self, faces: torch.Tensor, vertex_count: int) -> None:
        faces = _check.tensor_of("Topology", "faces", faces, ("F", 3))
        if faces.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"focus.ops.Topology: faces expected int32 or int64, got {faces.dtype}")
        count = _check.as_integer(vertex_count)
        if count is None or count < 0:
            raise ValueError(f"focus.ops.Topology: vertex_count expected an integer >= 0, got {vertex_count!r}")
        if type(count) is int and count >= 2**31 - 1:
            raise ValueError(f"focus.ops.Topology: vertex_count expected less than 2^31 - 1, got {count}")
        if faces.dtype == torch.int64:
            faces = faces.clamp(-(2**31), 2**31 - 1)  # so that an index beyond int32 stays out of range below
        self.vertex_count = count
        if torch.compiler.is_compiling():
            self._list(faces)
        else:
            with _lasting():
                self._list(faces)

    def _list(self, faces: torch.Tensor) -> None:
        # A copy: later edits of the caller's tensor must not slip past the check below.
        self.faces = faces.to(torch.int32, copy=True, memory_format=torch.contiguous_format)
        self.offsets, self.corners = _build_topology(self.faces, self.vertex_count)

    @property
    def neighbors(self) -> torch.Tensor:
        if self._neighbors is not None:
            return self._neighbors
        if torch.compiler.is_compiling():
            return _find_neighbors(self.faces, self.vertex_count)
        with _lasting():
            neighbors = _find_neighbors(self.faces, self.vertex_count)
        if can_be_kept(neighbors):
            self._neighbors = neighbors
        return neighbors

    @property
    def seams(self) -> torch.Tensor | None:
        if self._seams is not None or not (self.faces.is_cpu and can_be_kept(self.faces)):
            return self._seams
        with _lasting():
            lists = self.faces, self.neighbors, self.faces.new_empty(self.faces.numel(), 3)
            if all(map(can_be_kept, lists)):
                count = _native.module.find_seams(*map(_native.to_dlpack, lists))
                self._seams = lists[2][:count].clone()
        return self._seams

    def to(self, device: torch.device | str) -> Topology:
        """This topology on another device; itself where it is there already."""
        with _lasting():
            faces = self.faces.to(device)
            if faces is self.faces:
                return self
            moved = Topology.__new__(Topology)
            moved.vertex_count, moved.faces = self.vertex_count, faces
            moved.offsets, moved.corners = self.offsets.to(device), self.corners.to(device)
            moved._neighbors = None if self._neighbors is None else self._neighbors.to(device)
        return moved

    def __repr__(self) -> str:
        return f"Topology(faces={self.faces.shape[0]}, vertices={self.vertex_count}, device={self.faces.device})"


def topology_of(op: str, faces: torch.Tensor | Topology, vertex_count: int, device: torch.device) -> Topology:
    """`faces` as a Topology of a mesh of `vertex_count` vertices on `device`.

    Raises:
        ValueError: a Topology of another vertex count, or faces on another device.
    """
    topology = faces if isinstance(faces, Topology) else Topology(faces, vertex_count)
    if topology.vertex_count != vertex_count:
        raise ValueError(
            f"focus.ops.{op}: the topology is of {topology.vertex_count} vertices, and {vertex_count} came"
        )
    if topology.faces.device != device:
        raise ValueError(f"focus.ops.{op}: faces are on {topology.faces.device} and the vertices on {device}")
    return topology
