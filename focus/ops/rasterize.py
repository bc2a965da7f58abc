"""Triangles to pixels: which face covers each pixel, where in it, and how far away."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from focus.ops import _check, _native
from focus.ops.topology import Topology, topology_of

Cull = Literal["none", "clockwise", "counterclockwise"]
CULL = {"none": 0, "clockwise": 1, "counterclockwise": 2}


class Fragments(NamedTuple):
    """What `rasterize` finds at each pixel.

    Attributes:
        face_index: `[B, H, W]` int32, the nearest face; -1 in the background.
        barycentric: `[B, H, W, 3]`, weights of the face's vertices, >= 0, summing to 1; 0 in the background.
            Differentiable.
        depth: `[B, H, W]` in the unit of the vertices' z (mm); 0 in the background. Differentiable.
    """

    face_index: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor


def visibility_scratch(
    vertices: torch.Tensor, shape: tuple[int, int, int]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What CUDA kernels need to find the nearest faces of the pixels ``[B, H, W]``; Nones on the CPU."""
    if not _native.uses_cuda_kernels(vertices):
        return None, None
    pieces = _native.scratch(vertices, _native.module.PIECE_LIST_SIZE, dtype=torch.int64)
    return _native.scratch(vertices, *shape, dtype=torch.int64), pieces


def _forward(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    height: int,
    width: int,
    cull: int,
    perspective_correct: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vertices = screen_vertices.contiguous()
    shape = (vertices.shape[0], height, width)
    barycentric, depth = vertices.new_empty(*shape, 3), vertices.new_empty(*shape)
    face_index = vertices.new_empty(*shape, dtype=torch.int32)
    scratch = visibility_scratch(vertices, shape)
    _native.call("rasterize", vertices, faces, cull, perspective_correct, barycentric, depth, face_index, *scratch)
    return barycentric, depth, face_index


def _forward_fake(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    height: int,
    width: int,
    cull: int,
    perspective_correct: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (screen_vertices.shape[0], height, width)
    depth = screen_vertices.new_empty(shape)
    return screen_vertices.new_empty(*shape, 3), depth, depth.new_empty(shape, dtype=torch.int32)


def _backward_kernel(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    offsets: torch.Tensor,
    corners: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    grad_barycentric: torch.Tensor | None,
    grad_depth: torch.Tensor | None,
) -> torch.Tensor:
    vertices = screen_vertices.contiguous()
    grad_vertices = torch.empty_like(vertices)
    batch, face_count = vertices.shape[0], faces.shape[0]
    _native.call(
        "rasterize_backward",
        vertices,
        faces,
        offsets,
        corners,
        perspective_correct,
        face_index,
        None if grad_barycentric is None else grad_barycentric.contiguous(),
        None if grad_depth is None else grad_depth.contiguous(),
        *_native.face_scratch(vertices, batch, face_count, sums=9),
        _native.scratch(vertices, batch, face_count, 3, 3),
        grad_vertices,
    )
    return grad_vertices


def _backward_fake(screen_vertices: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(screen_vertices, memory_format=torch.contiguous_format)


_rasterize_backward = _native.define(
    "rasterize_backward(Tensor screen_vertices, Tensor faces, Tensor offsets, Tensor corners, "
    "bool perspective_correct, Tensor face_index, Tensor? grad_barycentric, Tensor? grad_depth) -> Tensor",
    _backward_kernel,
    _backward_fake,
)


def _tangent_kernel(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    tangent: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    barycentric_tangent, depth_tangent = _tangent_fake(screen_vertices, faces, perspective_correct, face_index, tangent)
    _native.call(
        "rasterize_tangent",
        screen_vertices.contiguous(),
        faces,
        perspective_correct,
        face_index.contiguous(),
        tangent.contiguous(),
        barycentric_tangent,
        depth_tangent,
    )
    return barycentric_tangent, depth_tangent


def _tangent_fake(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor,
    perspective_correct: bool,
    face_index: torch.Tensor,
    tangent: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    return screen_vertices.new_empty(*face_index.shape, 3), screen_vertices.new_empty(face_index.shape)


_rasterize_tangent = _native.define(
    "rasterize_tangent(Tensor screen_vertices, Tensor faces, bool perspective_correct, Tensor face_index, "
    "Tensor tangent) -> (Tensor, Tensor)",
    _tangent_kernel,
    _tangent_fake,
)


def _tangent(
    inputs: tuple[Any, ...], outputs: tuple[torch.Tensor, ...], tangents: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor, None]:
    screen_vertices, faces, *_, perspective_correct = inputs
    return *_rasterize_tangent(screen_vertices, faces, perspective_correct, outputs[2], tangents[0]), None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    screen_vertices, faces, offsets, corners, _, _, _, ctx.perspective_correct = inputs
    ctx.save_for_backward(screen_vertices, faces, offsets, corners, output[2])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, grad_barycentric: torch.Tensor | None, grad_depth: torch.Tensor | None, _: None
) -> tuple[torch.Tensor | None, ...]:
    grad = None
    if ctx.needs_input_grad[0] and (grad_barycentric is not None or grad_depth is not None):
        screen_vertices, faces, offsets, corners, face_index = ctx.saved_tensors
        grad = _rasterize_backward(
            screen_vertices, faces, offsets, corners, ctx.perspective_correct, face_index, grad_barycentric, grad_depth
        )
    return grad, None, None, None, None, None, None, None


_rasterize = _native.define(
    "rasterize(Tensor screen_vertices, Tensor faces, Tensor offsets, Tensor corners, SymInt height, SymInt width, "
    "int cull, bool perspective_correct) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
    backward=_backward,
    setup_context=_setup_context,
    tangent=_tangent,
)


def check_options(op: str, cull: object, perspective_correct: object) -> None:
    """Raises `ValueError` where one of them is none of operator `op`."""
    if not (type(cull) is str and cull in CULL and type(perspective_correct) is bool):
        _check.choice(op, "cull", cull, CULL)
        _check.choice(op, "perspective_correct", perspective_correct, (False, True))


def image_sides(op: str, image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, checked for operator `op`."""
    given = image_size if isinstance(image_size, (tuple, list)) and len(image_size) == 2 else (None, None)
    height, width = _check.as_integer(given[0]), _check.as_integer(given[1])
    if height is None or width is None:
        raise TypeError(f"focus.ops.{op}: image_size expected two integers (H, W), got {image_size!r}")
    if height < 0 or width < 0:
        raise ValueError(f"focus.ops.{op}: image_size expected (H, W) >= 0, got ({height}, {width})")
    return height, width


def rasterize(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor | Topology,
    image_size: tuple[int, int],
    *,
    cull: Cull = "none",
    perspective_correct: bool = False,
) -> Fragments:
    """Finds, for every pixel, the nearest face that covers its centre.

    A pixel belongs to a face when its centre lies inside the face or on its edges; pixel centres are at integer
    coordinates. The nearest depth wins, ties go to the lower face index. Two faces with a common edge leave no gap
    between them. Faces with a vertex that is not finite or has z <= 0, and faces of zero area, are left out. The result
    is the same, bit for bit, on every run and for every thread count.

    Args:
        screen_vertices: `[B, V, 3]` x (right) and y (down) in pixels, z = depth > 0. float32; float64 on the CPU;
            narrower types are widened to float32.
        faces: `[F, 3]` int32 or int64, or a `Topology`.
        image_size: (H, W) in pixels.
        cull: "clockwise" or "counterclockwise" leaves out the faces whose vertices run so as seen on the screen; "none"
            keeps all.
        perspective_correct: barycentrics and depth linear in space rather than on the screen.

    Returns:
        `Fragments`; gradients flow from `barycentric` and `depth` to `screen_vertices` (coverage itself is piecewise
        constant and has none).

    >>> triangle = torch.tensor([[[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [0.0, 2.0, 5.0]]])
    >>> fragments = ops.rasterize(triangle, torch.tensor([[0, 1, 2]]), (3, 4))
    >>> fragments.face_index[0].tolist()
    [[0, 0, 0, -1], [0, 0, -1, -1], [0, -1, -1, -1]]
    >>> fragments.barycentric[0, 0, 1].tolist()
    [0.5, 0.5, 0.0]

    Raises:
        TypeError, ValueError: wrong type, shape, device or index, named.
    """
    _check.floating("rasterize", "screen_vertices", screen_vertices, ("B", "V", 3))
    screen_vertices = _native.widen(screen_vertices)
    topology = topology_of("rasterize", faces, screen_vertices.shape[1], screen_vertices.device)
    check_options("rasterize", cull, perspective_correct)
    height, width = image_sides("rasterize", image_size)
    _check.image_fits("rasterize", screen_vertices.shape[0], 5, (height, width), screen_vertices)
    barycentric, depth, face_index = _rasterize(
        screen_vertices,
        topology.faces,
        topology.offsets,
        topology.corners,
        height,
        width,
        CULL[cull],
        perspective_correct,
    )
    return Fragments(face_index, barycentric, depth)
