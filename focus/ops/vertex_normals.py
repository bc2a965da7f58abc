"""Unit normals at the vertices of a mesh."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _check, _native
from focus.ops.topology import Topology, topology_of


def _forward(vertices: torch.Tensor, faces: torch.Tensor, offsets: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    vertices = vertices.contiguous()
    normals = torch.empty_like(vertices)
    _native.call("vertex_normals", vertices, faces, offsets, corners, normals)
    return normals


def _backward_kernel(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    grad_normals: torch.Tensor,
) -> torch.Tensor:
    vertices = vertices.contiguous()
    grad_sums, grad_vertices = torch.empty_like(vertices), torch.empty_like(vertices)
    _native.call(
        "vertex_normals_backward",
        vertices,
        faces,
        offsets,
        corners,
        grad_normals.contiguous(),
        grad_sums,
        grad_vertices,
    )
    return grad_vertices


def _like_vertices(vertices: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(vertices, memory_format=torch.contiguous_format)


_vertex_normals_backward = _native.define(
    "vertex_normals_backward(Tensor vertices, Tensor faces, Tensor offsets, Tensor corners, Tensor grad_normals) "
    "-> Tensor",
    _backward_kernel,
    _like_vertices,
)


def _tangent_kernel(
    vertices: torch.Tensor, faces: torch.Tensor, offsets: torch.Tensor, corners: torch.Tensor, tangent: torch.Tensor
) -> torch.Tensor:
    normals_tangent = _like_vertices(vertices)
    _native.call(
        "vertex_normals_tangent", vertices.contiguous(), faces, offsets, corners, tangent.contiguous(), normals_tangent
    )
    return normals_tangent


_vertex_normals_tangent = _native.define(
    "vertex_normals_tangent(Tensor vertices, Tensor faces, Tensor offsets, Tensor corners, Tensor tangent) -> Tensor",
    _tangent_kernel,
    _like_vertices,
)


def _tangent(
    inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor, tangents: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    normals: torch.Tensor = _vertex_normals_tangent(*inputs, tangents[0])
    return normals


def _setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_normals: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
    grad = _vertex_normals_backward(*ctx.saved_tensors, grad_normals) if ctx.needs_input_grad[0] else None
    return grad, None, None, None


_vertex_normals = _native.define(
    "vertex_normals(Tensor vertices, Tensor faces, Tensor offsets, Tensor corners) -> Tensor",
    _forward,
    _like_vertices,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor | Topology) -> torch.Tensor:
    """Unit normals along the sum of the normals of the faces at each vertex, weighted by area (after Gouraud, 1971).

    Args:
        vertices: `[B, V, 3]`. float32; float64 on the CPU; narrower types are widened to float32.
        faces: `[F, 3]` int32 or int64, or a `Topology`; counterclockwise seen from the side to which the normals point.

    Returns:
        `[B, V, 3]` of unit length; 0 at vertices whose sum is 0 (no face, or faces that cancel), with gradient 0. A
        face with a vertex that is not finite counts for none of its vertices, nor does one whose edges are so long
        that the product of two leaves the range of the type.

    >>> corner = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> ops.vertex_normals(corner, torch.tensor([[0, 1, 2]]))[0, 0].tolist()
    [0.0, 0.0, 1.0]

    Raises:
        TypeError, ValueError: wrong type, shape, device or index, named.
    """
    _check.floating("vertex_normals", "vertices", vertices, ("B", "V", 3))
    topology = topology_of("vertex_normals", faces, vertices.shape[1], vertices.device)
    normals: torch.Tensor = _vertex_normals(_native.widen(vertices), topology.faces, topology.offsets, topology.corners)
    return normals
