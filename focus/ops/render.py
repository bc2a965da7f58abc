"""A mesh to an image of its vertices' attributes: `rasterize` and `interpolate` in one."""

from __future__ import annotations

from typing import Any

import torch

from focus.ops import _check, _native
from focus.ops.rasterize import CULL, Cull, check_options, image_sides, visibility_scratch
from focus.ops.topology import Topology, topology_of


def _forward(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    height: int,
    width: int,
    cull: int,
    perspective_correct: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vertices = screen_vertices.contiguous()
    batch = vertices.shape[0]
    image = vertices.new_empty(batch, attributes.shape[2], height, width)
    mask = vertices.new_empty(batch, 1, height, width)
    face_index = vertices.new_empty(batch, height, width, dtype=torch.int32)
    _native.call(
        "render",
        vertices,
        attributes.contiguous(),
        faces,
        cull,
        perspective_correct,
        image,
        mask,
        face_index,
        *visibility_scratch(vertices, (batch, height, width)),
    )
    return image, mask, face_index


def _forward_fake(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    height: int,
    width: int,
    cull: int,
    perspective_correct: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = screen_vertices.shape[0]
    image = screen_vertices.new_empty(batch, attributes.shape[2], height, width)
    mask = screen_vertices.new_empty(batch, 1, height, width)
    return image, mask, screen_vertices.new_empty(batch, height, width, dtype=torch.int32)


def _backward_kernel(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    grad_image: torch.Tensor,
    needs_vertices: bool,
    needs_attributes: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    vertices = screen_vertices.contiguous()
    batch, face_count, channels = vertices.shape[0], faces.shape[0], attributes.shape[2]
    grad_vertices = _native.empty_unless(needs_vertices, *vertices.shape, like=vertices)
    grad_attributes = _native.empty_unless(needs_attributes, *attributes.shape, like=vertices)
    _native.call(
        "render_backward",
        vertices,
        attributes.contiguous(),
        faces,
        offsets,
        corners,
        perspective_correct,
        face_index,
        grad_image.contiguous(),
        *_native.face_scratch(vertices, batch, face_count, sums=_native.module.RENDER_SUMS),
        _native.scratch(vertices, batch, face_count, 3, 3 + channels),
        grad_vertices,
        grad_attributes,
    )
    return _native.or_nothing(grad_vertices, vertices), _native.or_nothing(grad_attributes, vertices)


def _backward_fake(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    grad_image: torch.Tensor,
    needs_vertices: bool,
    needs_attributes: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        screen_vertices.new_empty(screen_vertices.shape if needs_vertices else (0,)),
        screen_vertices.new_empty(attributes.shape if needs_attributes else (0,)),
    )


_render_backward = _native.define(
    "render_backward(Tensor screen_vertices, Tensor attributes, Tensor faces, Tensor offsets, Tensor corners, "
    "bool perspective_correct, Tensor face_index, Tensor grad_image, bool needs_vertices, bool needs_attributes) "
    "-> (Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)


def _tangent_kernel(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    vertices_tangent: torch.Tensor | None,
    attributes_tangent: torch.Tensor | None,
) -> torch.Tensor:
    image_tangent = _tangent_fake(screen_vertices, attributes, faces, perspective_correct, face_index)
    _native.call(
        "render_tangent",
        screen_vertices.contiguous(),
        attributes.contiguous(),
        faces,
        perspective_correct,
        face_index.contiguous(),
        None if vertices_tangent is None else vertices_tangent.contiguous(),
        None if attributes_tangent is None else attributes_tangent.contiguous(),
        image_tangent,
    )
    return image_tangent


def _tangent_fake(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    *_: torch.Tensor | None,
) -> torch.Tensor:
    batch, height, width = face_index.shape
    return screen_vertices.new_empty(batch, attributes.shape[2], height, width)


_render_tangent = _native.define(
    "render_tangent(Tensor screen_vertices, Tensor attributes, Tensor faces, bool perspective_correct, "
    "Tensor face_index, Tensor? vertices_tangent, Tensor? attributes_tangent) -> Tensor",
    _tangent_kernel,
    _tangent_fake,
)


def _tangent(
    inputs: tuple[Any, ...], outputs: tuple[torch.Tensor, ...], tangents: tuple[torch.Tensor | None, ...]
) -> tuple[torch.Tensor, None, None]:
    screen_vertices, attributes, faces, *_, perspective_correct = inputs
    image = _render_tangent(screen_vertices, attributes, faces, perspective_correct, outputs[2], *tangents[:2])
    return image, None, None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    _, mask, face_index = output
    ctx.perspective_correct = inputs[-1]
    ctx.save_for_backward(*inputs[:5], face_index)
    ctx.mark_non_differentiable(mask)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_image: torch.Tensor | None, *_: None) -> tuple[torch.Tensor | None, ...]:
    grad_vertices = grad_attributes = None
    if grad_image is not None:
        *inputs, face_index = ctx.saved_tensors
        needs_vertices, needs_attributes = ctx.needs_input_grad[:2]
        grads = _render_backward(
            *inputs, ctx.perspective_correct, face_index, grad_image, needs_vertices, needs_attributes
        )
        grad_vertices = grads[0] if needs_vertices else None
        grad_attributes = grads[1] if needs_attributes else None
    return (grad_vertices, grad_attributes, *[None] * 7)


_render = _native.define(
    "render(Tensor screen_vertices, Tensor attributes, Tensor faces, Tensor offsets, Tensor corners, SymInt height, "
    "SymInt width, int cull, bool perspective_correct) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def render(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor | Topology,
    image_size: tuple[int, int],
    *,
    cull: Cull = "none",
    perspective_correct: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertex attributes at every pixel that a face covers.

    The image of ``interpolate(attributes, faces, rasterize(screen_vertices, faces, image_size, ...))``, bit for bit,
    with the rules of `rasterize` for what covers a pixel. Only the face of each pixel is kept for the gradient.

    Args:
        screen_vertices: `[B, V, 3]` x (right) and y (down) in pixels, z = depth > 0. float32; float64 on the CPU;
            narrower types are widened to float32.
        attributes: `[B, V, C]`, or `[1, V, C]` shared by the batch; of one dtype with the vertices.
        faces: `[F, 3]` int32 or int64, or a `Topology`.
        image_size: (H, W) in pixels.
        cull: "clockwise" or "counterclockwise" leaves out the faces whose vertices run so as seen on the screen; "none"
            keeps all.
        perspective_correct: attributes linear in space rather than on the screen.

    Returns:
        image: `[B, C, H, W]`, 0 in the background. Gradients flow to `attributes` and `screen_vertices` (coverage
            itself is piecewise constant and has none).
        mask: `[B, 1, H, W]`, 1 where a face is and 0 elsewhere; not differentiable.
        face_index: `[B, H, W]` int32, the nearest face; -1 in the background.

    >>> triangle = torch.tensor([[[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [0.0, 2.0, 5.0]]])
    >>> brightness = torch.tensor([[[0.0], [1.0], [1.0]]])
    >>> image, mask, face_index = ops.render(triangle, brightness, torch.tensor([[0, 1, 2]]), (3, 3))
    >>> image[0, 0].tolist()
    [[0.0, 0.5, 1.0], [0.5, 1.0, 0.0], [1.0, 0.0, 0.0]]

    Raises:
        TypeError, ValueError: wrong type, shape, device or index, named.
    """
    op = "render"
    _check.floating(op, "screen_vertices", screen_vertices, ("B", "V", 3))
    batch, vertex_count, _ = screen_vertices.shape
    _check.floating(op, "attributes", attributes, ("B", vertex_count, "C"))
    screen_vertices, attributes = _native.widen(screen_vertices), _native.widen(attributes)
    _check.same_device_and_dtype(op, screen_vertices=screen_vertices, attributes=attributes)
    if attributes.shape[0] not in (1, batch):
        raise ValueError(
            f"focus.ops.{op}: attributes expected a batch of 1 or {batch}, as the vertices have, "
            f"got {attributes.shape[0]}"
        )
    topology = topology_of(op, faces, vertex_count, screen_vertices.device)
    check_options(op, cull, perspective_correct)
    height, width = image_sides(op, image_size)
    _check.image_fits(op, batch, attributes.shape[2] + 2, (height, width), screen_vertices)
    image, mask, face_index = _render(
        screen_vertices,
        attributes,
        topology.faces,
        topology.offsets,
        topology.corners,
        height,
        width,
        CULL[cull],
        perspective_correct,
    )
    return image, mask, face_index
