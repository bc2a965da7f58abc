"""Other libraries that draw meshes, as far as they are installed: how they do what an operator of ours does.

Nothing of them is here, and nothing is installed for them. `pip install drtk` brings a package that is not Meta's: DRTK
is built from facebookresearch/DRTK.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _meshes import Mesh

from focus import ops

Tensors = tuple[torch.Tensor, ...]
Run = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """The same work, ours and theirs; `disagreement` says what is different about the results, None if nothing is."""

    what: str
    ours: Run
    theirs: Run
    disagreement: Callable[[], str | None]


@dataclass(frozen=True)
class Peer:
    """A library.

    Attributes:
        module: what is imported; `parts` are the functions of it that are called.
        devices: where it runs.
        comparisons: from the module, a mesh and a device.
        most_faces: on the CPU, beyond which a call takes minutes.
    """

    name: str
    module: str
    parts: tuple[str, ...]
    devices: tuple[str, ...]
    comparisons: Callable[[Any, Mesh, torch.device], Iterator[Comparison]]
    most_faces: int = 1 << 30

    def obstacle(self, device: torch.device) -> str | None:
        """Why it cannot be compared with."""
        if device.type not in self.devices:
            return f"runs on {' and '.join(self.devices)} only"
        found = find(self.module, self.parts)
        return found if isinstance(found, str) else None


def find(name: str, parts: Sequence[str] = ()) -> Any:
    """The module, or, as a string, why there is none."""
    try:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            return "not installed"
        module = importlib.import_module(name)
    except Exception as error:  # another library, built for another torch, say: it may raise anything
        return f"installed, and cannot be imported ({type(error).__name__}: {error})"
    missing = [part for part in parts if not hasattr(module, part)]
    return f"another package of this name: it has no {', '.join(missing)}" if missing else module


@dataclass(frozen=True)
class Drawing:
    """How a peer makes an image.

    Attributes:
        place: from our screen vertices to its own; not timed.
        draw: from those, and colours, an image `[B, 3, H, W]` and what is >= 0 where it shows a face, `[B, H, W]`.
        near: how far the colour of a pixel may be from ours, where `share` of the pixels may be others.
        tolerance: of gradients, relative to their length; None where rules for outlines are too different to compare.
    """

    place: Callable[[torch.Tensor], torch.Tensor]
    draw: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    perspective_correct: bool
    near: float = 0.002
    share: float = 0.001
    tolerance: float | None = 0.01
    has_gradient: bool = True


def same_pixels(ours: torch.Tensor, theirs: torch.Tensor, near: float, share: float = 0.001) -> str | None:
    """Whether values `[B, C, H, W]` are apart by more than `near` at more than `share` of the pixels: rounding decides
    about a pixel centre on an edge."""
    if ours.shape != theirs.shape:
        return f"shape {list(theirs.shape)} and not {list(ours.shape)}"
    apart = float(((ours - theirs).abs() <= near).logical_not().any(1).float().mean())
    return f"{apart:.2%} of the pixels differ by more than {near}" if apart > share else None


def same_vectors(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], tolerance: float | None) -> str | None:
    """Gradients, each as one vector: in float32 slivers cost some digits."""
    if tolerance is None:
        return None
    for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = float((a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-30))
        if not error <= tolerance:
            return f"gradient {position} differs by {error:.1e} of its length"
    return None


def _forward(function: Callable[..., object], inputs: Tensors) -> Run:
    return functools.partial(function, *inputs)


def _backward(function: Callable[..., Any], inputs: Tensors, weights: Sequence[torch.Tensor]) -> Callable[[], Tensors]:
    """Forward and backward: gradients of the inputs. The first outputs of the function are weighted."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]

    def run() -> Tensors:
        outputs = function(*leaves)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        return torch.autograd.grad(outputs[: len(weights)], leaves, weights)

    return run


def _images(drawing: Drawing, mesh: Mesh, device: torch.device) -> Iterator[Comparison]:
    """A mesh to an image, forward, and forward + backward where the peer has a gradient."""
    topology, size = mesh.topology(device), (mesh.image, mesh.image)
    vertices, colors = mesh.vertices.to(device), mesh.random(device, mesh.vertices.shape[1], 3)
    placed = drawing.place(vertices).contiguous()

    def draw(vertices: torch.Tensor, colors: torch.Tensor) -> Tensors:
        return ops.render(vertices, colors, topology, size, perspective_correct=drawing.perspective_correct)

    def place_and_draw(vertices: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
        return drawing.draw(drawing.place(vertices), colors)[0]

    _, mask, _ = draw(vertices, colors)
    # Backgrounds are not compared: not all leave 0 there.
    weights = [mesh.random(device, 3, *size) * mask]

    def images_differ() -> str | None:
        (image, mask, _), (other, shown) = draw(vertices, colors), drawing.draw(placed, colors)
        shown = (shown >= 0).unsqueeze(1)
        wrong = same_pixels(mask, shown.to(mask.dtype), 0.5, drawing.share)
        return f"coverage: {wrong}" if wrong else same_pixels(image * mask, other * mask, drawing.near, drawing.share)

    def gradients_differ() -> str | None:
        found, other = (_backward(how, (vertices, colors), weights)() for how in (draw, place_and_draw))
        return images_differ() or same_vectors(found, other, drawing.tolerance)

    yield Comparison(
        "mesh to image, forward",
        _forward(draw, (vertices, colors)),
        _forward(drawing.draw, (placed, colors)),
        images_differ,
    )
    if drawing.has_gradient:
        yield Comparison(
            "mesh to image, forward + backward",
            _backward(draw, (vertices, colors), weights),
            _backward(drawing.draw, (placed, colors), weights),
            gradients_differ,
        )


def _drtk(drtk: Any, mesh: Mesh, device: torch.device) -> Iterator[Comparison]:
    """Always perspective. It is given the faces of each image, made once: else it copies them in each call."""
    batch, size = mesh.vertices.shape[0], (mesh.image, mesh.image)
    faces = mesh.faces.int().to(device)[None].expand(batch, -1, -1).contiguous()

    def locate(vertices: torch.Tensor) -> Tensors:
        index = drtk.rasterize(vertices, faces, *size)
        return *drtk.render(vertices, faces, index), index

    def draw(vertices: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, inside, index = locate(vertices)
        return drtk.interpolate(colors, faces, index, inside), index

    def outline(vertices: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
        _, inside, index = locate(vertices)
        image = drtk.interpolate(colors, faces, index, inside)
        found: torch.Tensor = drtk.edge_grad_estimator(vertices, faces, inside, image, index)
        return found

    yield from _images(Drawing(lambda vertices: vertices, draw, perspective_correct=True), mesh, device)
    yield from _fragments(locate, mesh, device)
    yield _outlines(outline, mesh, device)


def _fragments(locate: Callable[[torch.Tensor], Tensors], mesh: Mesh, device: torch.device) -> Iterator[Comparison]:
    """Depth and coordinates of pixels; `locate` returns them first."""
    topology, size, vertices = mesh.topology(device), (mesh.image, mesh.image), mesh.vertices.to(device)

    def ours(vertices: torch.Tensor) -> Tensors:
        found = ops.rasterize(vertices, topology, size, perspective_correct=True)
        return found.depth, found.barycentric.movedim(3, 1)

    mask = (ours(vertices)[0] > 0).float()
    weights = [mesh.random(device, *size) * mask, mesh.random(device, 3, *size) * mask.unsqueeze(1)]

    def values_differ() -> str | None:
        (depth, inside), (other, other_inside, *_) = ours(vertices), locate(vertices)
        wrong = same_pixels((depth * mask).unsqueeze(1), (other * mask).unsqueeze(1), 0.1)  # mm, of about 1000
        masks = mask.unsqueeze(1)
        return f"depth: {wrong}" if wrong else same_pixels(inside * masks, other_inside * masks, 0.002)

    def gradients_differ() -> str | None:
        found, other = (_backward(how, (vertices,), weights)() for how in (ours, locate))
        return values_differ() or same_vectors(found, other, 0.01)

    name = "depth and coordinates"
    yield Comparison(f"{name}, forward", _forward(ours, (vertices,)), _forward(locate, (vertices,)), values_differ)
    yield Comparison(
        f"{name}, forward + backward",
        _backward(ours, (vertices,), weights),
        _backward(locate, (vertices,), weights),
        gradients_differ,
    )


def _outlines(outline: Callable[..., torch.Tensor], mesh: Mesh, device: torch.device) -> Comparison:
    """An image whose outline has a gradient, each library's own: only the image before it can be compared, which theirs
    leaves as it is."""
    topology, size = mesh.topology(device), (mesh.image, mesh.image)
    inputs = mesh.vertices.to(device), mesh.random(device, mesh.vertices.shape[1], 3)

    def ours(vertices: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
        image, _, index = ops.render(vertices, colors, topology, size, perspective_correct=True)
        return ops.antialias(image, vertices, topology, index)

    def differ() -> str | None:
        image, mask, _ = ops.render(*inputs, topology, size, perspective_correct=True)
        return same_pixels(image, outline(*inputs) * mask, 0.002)

    weights = [mesh.random(device, 3, *size)]
    return Comparison(
        "mesh to image, outlines, forward + backward",
        _backward(ours, inputs, weights),
        _backward(outline, inputs, weights),
        differ,
    )


def _sim3dr(sim3dr: Any, mesh: Mesh, device: torch.device) -> Iterator[Comparison]:
    """An image at a time, in bytes, nearer with greater z. No gradients."""
    size, count = mesh.image, mesh.faces.shape[0]
    faces = mesh.faces.int().numpy()

    def place(vertices: torch.Tensor) -> torch.Tensor:
        return vertices * torch.tensor([1.0, 1.0, -1.0])

    def draw(vertices: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = np.zeros((vertices.shape[0], size, size, 3), np.uint8)
        depths = np.full((vertices.shape[0], size, size), -1e8, np.float32)
        for image, depth, points, shades in zip(images, depths, vertices.numpy(), colors.numpy(), strict=True):
            sim3dr.rasterize(image, points, faces, shades, depth, count, size, size, 3)
        return torch.from_numpy(images), torch.from_numpy(depths)

    def as_ours(vertices: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image, depth = draw(vertices, colors)
        return image.movedim(3, 1) / 255, depth + 0.99e8

    drawing = Drawing(place, as_ours, perspective_correct=False, near=0.008, has_gradient=False)
    (checked,) = _images(drawing, mesh, device)
    placed = place(mesh.vertices).contiguous()
    colors = mesh.random(device, mesh.vertices.shape[1], 3)
    # Timed without the conversion to our layout.
    yield Comparison(checked.what, checked.ours, _forward(draw, (placed, colors)), checked.disagreement)
    yield _sim3dr_normals(sim3dr, mesh, faces)


def _sim3dr_normals(sim3dr: Any, mesh: Mesh, faces: Any) -> Comparison:
    topology, vertices = mesh.topology(torch.device("cpu")), mesh.vertices

    def normals() -> torch.Tensor:
        found = np.zeros(tuple(vertices.shape), np.float32)
        for points, of_image in zip(vertices.numpy(), found, strict=True):
            sim3dr.get_normal(of_image, points, faces, points.shape[0], faces.shape[0])
        return torch.from_numpy(found)

    def differ() -> str | None:
        return same_vectors([ops.vertex_normals(vertices, topology)], [normals()], 0.001)

    return Comparison("normals of vertices, forward", lambda: ops.vertex_normals(vertices, topology), normals, differ)


def _pytorch3d(renderer: Any, mesh: Mesh, device: torch.device) -> Iterator[Comparison]:
    """Its rasterizer and its interpolation, without its cameras and shaders. x to the left, y up, sides of -1 to 1."""
    structures = importlib.import_module("pytorch3d.structures")
    interpolation = importlib.import_module("pytorch3d.ops")
    size, faces = mesh.image, mesh.faces.to(device)
    corners = torch.cat([faces + i * mesh.vertices.shape[1] for i in range(mesh.vertices.shape[0])])

    def place(vertices: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - (2 * vertices[..., :2] + 1) / size, vertices[..., 2:]], -1)

    def draw(vertices: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        meshes = structures.Meshes(vertices, faces[None].expand(vertices.shape[0], -1, -1))
        index, _, inside, _ = renderer.rasterize_meshes(
            meshes, image_size=(size, size), blur_radius=0.0, faces_per_pixel=1, perspective_correct=False
        )
        image = interpolation.interpolate_face_attributes(index, inside, colors.flatten(0, 1)[corners])
        return image[..., 0, :].movedim(3, 1), index[..., 0]

    yield from _images(Drawing(place, draw, perspective_correct=False), mesh, device)


def _nvdiffrast(dr: Any, mesh: Mesh, device: torch.device) -> Iterator[Comparison]:
    """Clip space; its rule for which pixel an edge has is another, so that outlines differ."""
    size, faces = mesh.image, mesh.faces.int().to(device)
    context = dr.RasterizeCudaContext(device)

    def place(vertices: torch.Tensor) -> torch.Tensor:
        sides = (vertices[..., :2] + 0.5) / size * 2 - 1
        return torch.cat([sides, vertices[..., 2:] / 1e4, torch.ones_like(sides[..., :1])], -1)

    def draw(clip: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found, _ = dr.rasterize(context, clip, faces, (size, size))
        image, _ = dr.interpolate(colors, found, faces)
        return image.movedim(3, 1), found[..., 3] - 1

    yield from _images(
        Drawing(place, draw, perspective_correct=False, near=0.02, share=0.03, tolerance=None), mesh, device
    )


DRTK_PARTS = ("rasterize", "render", "interpolate", "edge_grad_estimator")

PEERS = (
    Peer("DRTK", "drtk", DRTK_PARTS, ("cpu", "cuda"), _drtk),
    Peer("Sim3DR", "Sim3DR_Cython", ("rasterize", "get_normal"), ("cpu",), _sim3dr),
    Peer("PyTorch3D", "pytorch3d.renderer", ("rasterize_meshes",), ("cpu", "cuda"), _pytorch3d, most_faces=20_000),
    Peer("nvdiffrast", "nvdiffrast.torch", ("rasterize", "interpolate"), ("cuda",), _nvdiffrast),
)
