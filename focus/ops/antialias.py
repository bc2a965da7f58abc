"""Smooth coverage at silhouette edges, so that outlines have gradients."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _check, _native
from focus.ops.topology import Topology, topology_of


def _forward(
    image: torch.Tensor,
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    neighbors: torch.Tensor,
    face_index: torch.Tensor,
    seams: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    image, vertices = image.contiguous(), screen_vertices.contiguous()
    outputs = _forward_fake(image)
    _native.call("antialias", image, vertices, faces, neighbors, face_index.contiguous(), seams, *outputs)
    return outputs


def _forward_fake(image: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch, _channels, height, width = image.shape
    return image.new_empty(*image.shape), image.new_empty(batch, height, 2, width, dtype=torch.int32)


def _backward_kernel(
    image: torch.Tensor,
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    edges: torch.Tensor,
    grad_values: torch.Tensor,
    needs_image: bool,
    needs_vertices: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    image, vertices = image.contiguous(), screen_vertices.contiguous()
    batch, face_count = image.shape[0], faces.shape[0]
    grad_image = _native.empty_unless(needs_image, *image.shape, like=image)
    grad_vertices = _native.empty_unless(needs_vertices, *vertices.shape, like=vertices)
    scratch: tuple[torch.Tensor | None, ...] = (None, None, None, None)
    if needs_vertices:
        scratch = (
            *_native.face_scratch(vertices, batch, face_count, sums=6),
            _native.scratch(vertices, batch, face_count, 3, 2),
        )
    _native.call(
        "antialias_backward",
        image,
        vertices,
        faces,
        offsets,
        corners,
        edges.contiguous(),
        grad_values.contiguous(),
        *scratch,
        grad_image,
        grad_vertices,
    )
    return _native.or_nothing(grad_image, image), _native.or_nothing(grad_vertices, image)


def _backward_fake(
    image: torch.Tensor,
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    edges: torch.Tensor,
    grad_values: torch.Tensor,
    needs_image: bool,
    needs_vertices: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        image.new_empty(image.shape if needs_image else (0,)),
        image.new_empty(screen_vertices.shape if needs_vertices else (0,)),
    )


_antialias_backward = _native.define(
    "antialias_backward(Tensor image, Tensor screen_vertices, Tensor faces, Tensor offsets, Tensor corners, "
    "Tensor edges, Tensor grad_values, bool needs_image, bool needs_vertices) -> (Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _tangent_kernel(
    image: torch.Tensor,
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    edges: torch.Tensor,
    image_tangent: torch.Tensor | None,
    vertices_tangent: torch.Tensor | None,
) -> torch.Tensor:
    values_tangent = _tangent_fake(image)
    _native.call(
        "antialias_tangent",
        image.contiguous(),
        screen_vertices.contiguous(),
        faces,
        edges.contiguous(),
        None if image_tangent is None else image_tangent.contiguous(),
        None if vertices_tangent is None else vertices_tangent.contiguous(),
        values_tangent,
    )
    return values_tangent


def _tangent_fake(image: torch.Tensor, *_: Any) -> torch.Tensor:
    return image.new_empty(image.shape)


_antialias_tangent = _native.define(
    "antialias_tangent(Tensor image, Tensor screen_vertices, Tensor faces, Tensor edges, Tensor? image_tangent, "
    "Tensor? vertices_tangent) -> Tensor",
    _tangent_kernel,
    _tangent_fake,
)


def _tangent(
    inputs: tuple[torch.Tensor, ...],
    outputs: tuple[torch.Tensor, torch.Tensor],
    tangents: tuple[torch.Tensor | None, ...],
) -> tuple[torch.Tensor, None]:
    return _antialias_tangent(*inputs[:3], outputs[1], *tangents[:2]), None


def _setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.other_inputs = len(inputs) - 2


def _backward(ctx: Any, grad_values: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
    needs_image, needs_vertices = ctx.needs_input_grad[:2]
    grad_image, grad_vertices = _antialias_backward(*ctx.saved_tensors, grad_values, needs_image, needs_vertices)
    return (grad_image if needs_image else None, grad_vertices if needs_vertices else None, *[None] * ctx.other_inputs)


_antialias = _native.define(
    "antialias(Tensor image, Tensor screen_vertices, Tensor faces, Tensor offsets, Tensor corners, Tensor neighbors, "
    "Tensor face_index, Tensor? seams=None) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def antialias(
    image: torch.Tensor, screen_vertices: torch.Tensor, faces: torch.Tensor | Topology, face_index: torch.Tensor
) -> torch.Tensor:
    """Blends neighbouring pixels where a silhouette edge passes between their centres.

    Of two neighbours of different face, the surface is followed from the face at one, P, to the other, N, through as
    many faces as lie between. Where it ends or folds back at t in [0, 1] of the way, at a silhouette edge, the value of
    P reaches beyond the middle for t > 1/2 and that of N for t < 1/2: ``N += (t - 1/2) (P - N)`` or
    ``P += (1/2 - t) (N - P)``. An edge blends along x where it is at least as steep as a diagonal, else along y. What
    the neighbours leave of a pixel along x and along y is multiplied: of a rectangle along the axes, however small, a
    pixel whose centre it covers gets the exact area in its cell. Every value lies between those of the pixel and its
    neighbours: a mask stays in [0, 1].

    Args:
        image: `[B, C, H, W]`, a value for every pixel of `face_index`. float32; float64 on the CPU; narrower types are
            widened to float32.
        screen_vertices: `[B, V, 3]`, the vertices that were rasterized.
        faces: the faces that were rasterized: `[F, 3]` int32 or int64, or a `Topology`.
        face_index: `[B, H, W]` int32 of `rasterize`.

    Returns:
        `[B, C, H, W]`. Gradients flow to `image` and to x and y of `screen_vertices`.

    >>> square = torch.tensor([[[-1.0, -1.0, 5.0], [1.75, -1.0, 5.0], [1.75, 9.0, 5.0], [-1.0, 9.0, 5.0]]])
    >>> faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    >>> _, mask, face_index = ops.render(square, torch.ones(1, 4, 1), faces, (1, 4))
    >>> mask.flatten().tolist(), ops.antialias(mask, square, faces, face_index).flatten().tolist()
    ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.25, 0.0])

    Raises:
        TypeError, ValueError: wrong type, shape, device or index, named.
    """
    batch, height, width = _check.tensor_of("antialias", "face_index", face_index, ("B", "H", "W")).shape
    if face_index.dtype != torch.int32:
        raise TypeError(f"focus.ops.antialias: face_index expected int32, got {face_index.dtype}")
    _check.floating("antialias", "image", image, (batch, "C", height, width))
    _check.floating("antialias", "screen_vertices", screen_vertices, (batch, "V", 3))
    image, screen_vertices = _native.widen(image), _native.widen(screen_vertices)
    _check.same_device_and_dtype("antialias", image=image, screen_vertices=screen_vertices)
    topology = topology_of("antialias", faces, screen_vertices.shape[1], screen_vertices.device)
    values: torch.Tensor = _antialias(
        image,
        screen_vertices,
        topology.faces,
        topology.offsets,
        topology.corners,
        topology.neighbors,
        face_index,
        topology.seams,
    )[0]
    return values
