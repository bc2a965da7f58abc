"""Vertex attributes at the pixels that `rasterize` found."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _check, _native
from focus.ops.rasterize import Fragments
from focus.ops.topology import Topology, topology_of


def _forward(
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    face_index: torch.Tensor,
    barycentric: torch.Tensor,
) -> torch.Tensor:
    attributes = attributes.contiguous()
    batch, height, width = face_index.shape
    values = attributes.new_empty(batch, attributes.shape[2], height, width)
    _native.call("interpolate", attributes, faces, face_index.contiguous(), barycentric.contiguous(), values)
    return values


def _forward_fake(
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    face_index: torch.Tensor,
    barycentric: torch.Tensor,
) -> torch.Tensor:
    batch, height, width = face_index.shape
    return attributes.new_empty(batch, attributes.shape[2], height, width)


def _backward_kernel(
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    face_index: torch.Tensor,
    barycentric: torch.Tensor,
    grad_values: torch.Tensor,
    needs_attributes: bool,
    needs_barycentric: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    attributes = attributes.contiguous()
    batch, face_count, channels = face_index.shape[0], faces.shape[0], attributes.shape[2]
    grad_attributes = _native.empty_unless(needs_attributes, *attributes.shape, like=attributes)
    grad_barycentric = _native.empty_unless(needs_barycentric, *barycentric.shape, like=attributes)
    scratch: tuple[torch.Tensor | None, ...] = (None, None, None, None)
    if needs_attributes:
        scratch = (
            *_native.face_scratch(attributes, batch, face_count, sums=3),
            _native.scratch(attributes, batch, face_count, 3, channels),
        )
    _native.call(
        "interpolate_backward",
        attributes,
        faces,
        offsets,
        corners,
        face_index.contiguous(),
        barycentric.contiguous(),
        grad_values.contiguous(),
        *scratch,
        grad_attributes,
        grad_barycentric,
    )
    return _native.or_nothing(grad_attributes, attributes), _native.or_nothing(grad_barycentric, attributes)


def _backward_fake(
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    face_index: torch.Tensor,
    barycentric: torch.Tensor,
    grad_values: torch.Tensor,
    needs_attributes: bool,
    needs_barycentric: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        attributes.new_empty(attributes.shape if needs_attributes else (0,)),
        attributes.new_empty(barycentric.shape if needs_barycentric else (0,)),
    )


_interpolate_backward = _native.define(
    "interpolate_backward(Tensor attributes, Tensor faces, Tensor offsets, Tensor corners, Tensor face_index, "
    "Tensor barycentric, Tensor grad_values, bool needs_attributes, bool needs_barycentric) -> (Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_values: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    needs_attributes, needs_barycentric = ctx.needs_input_grad[0], ctx.needs_input_grad[5]
    grad_attributes, grad_barycentric = _interpolate_backward(
        *ctx.saved_tensors, grad_values, needs_attributes, needs_barycentric
    )
    return (
        grad_attributes if needs_attributes else None,
        None,
        None,
        None,
        None,
        grad_barycentric if needs_barycentric else None,
    )


def _tangent(
    inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor, tangents: tuple[torch.Tensor | None, ...]
) -> torch.Tensor:
    """The values are linear in the attributes, and in the barycentrics."""
    attributes, *mesh, barycentric = inputs
    parts = [
        _interpolate(attributes if a is None else a, *mesh, barycentric if b is None else b)
        for a, b in ((tangents[0], None), (None, tangents[5]))
        if a is not None or b is not None
    ]
    total: torch.Tensor = sum(parts[1:], parts[0])
    return total


_interpolate = _native.define(
    "interpolate(Tensor attributes, Tensor faces, Tensor offsets, Tensor corners, Tensor face_index, "
    "Tensor barycentric) -> Tensor",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def interpolate(attributes: torch.Tensor, faces: torch.Tensor | Topology, fragments: Fragments) -> torch.Tensor:
    """Vertex attributes at every pixel: ``sum_k barycentric[k] * attributes[face[k]]``.

    Args:
        attributes: `[B, V, C]`, or `[1, V, C]` shared by the batch. float32; float64 on the CPU; narrower types are
            widened to float32.
        faces: the faces that were rasterized: `[F, 3]` int32 or int64, or a `Topology`.
        fragments: what `rasterize` returned.

    Returns:
        `[B, C, H, W]`, 0 in the background. Gradients flow to `attributes` and, through `fragments.barycentric`, to the
        vertices.

    >>> triangle = torch.tensor([[[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [0.0, 2.0, 5.0]]])
    >>> faces = ops.Topology(torch.tensor([[0, 1, 2]]), vertex_count=3)
    >>> fragments = ops.rasterize(triangle, faces, (3, 3))
    >>> ops.interpolate(torch.tensor([[[10.0], [20.0], [30.0]]]), faces, fragments)[0, 0].tolist()
    [[10.0, 15.0, 20.0], [20.0, 25.0, 0.0], [30.0, 0.0, 0.0]]

    Raises:
        TypeError, ValueError: wrong type, shape, device or index, named.
    """
    _check.floating("interpolate", "attributes", attributes, ("B", "V", "C"))
    attributes = _native.widen(attributes)
    if not isinstance(fragments, Fragments):
        raise TypeError(
            f"focus.ops.interpolate: fragments expected what rasterize returned, got {type(fragments).__name__}"
        )
    batch, height, width = _check.tensor_of(
        "interpolate", "fragments.face_index", fragments.face_index, ("B", "H", "W")
    ).shape
    if fragments.face_index.dtype != torch.int32:
        raise TypeError(f"focus.ops.interpolate: fragments.face_index expected int32, got {fragments.face_index.dtype}")
    _check.floating("interpolate", "fragments.barycentric", fragments.barycentric, (batch, height, width, 3))
    barycentric = _native.widen(fragments.barycentric)
    _check.same_device_and_dtype("interpolate", attributes=attributes, barycentric=barycentric)
    if attributes.shape[0] not in (1, batch):
        raise ValueError(
            f"focus.ops.interpolate: attributes expected a batch of 1 or {batch}, as the fragments have, "
            f"got {attributes.shape[0]}"
        )
    topology = topology_of("interpolate", faces, attributes.shape[1], attributes.device)
    values: torch.Tensor = _interpolate(
        attributes,
        topology.faces,
        topology.offsets,
        topology.corners,
        fragments.face_index,
        barycentric,
    )
    return values
