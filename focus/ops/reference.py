"""The operators in plain torch: what the kernels are tested against, and what to read first.

Slow, differentiable, on any device. Arguments and results are those of the operators of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from focus.ops.rasterize import Cull, Fragments
from focus.ops.topology import Topology

Pixel = tuple[int, int]  # x, y


def _plain(faces: torch.Tensor | Topology) -> torch.Tensor:
    return (faces.faces if isinstance(faces, Topology) else faces).long()


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def rasterize(
    screen_vertices: torch.Tensor,
    faces: torch.Tensor | Topology,
    image_size: tuple[int, int],
    *,
    cull: Cull = "none",
    perspective_correct: bool = False,
) -> Fragments:
    """Every face against every pixel, one face at a time, in double precision."""
    height, width = image_size
    batch = screen_vertices.shape[0]
    device, dtype = screen_vertices.device, screen_vertices.dtype
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.int64, device=device) for side in image_size), indexing="ij")
    pixels = torch.stack([x, y], -1).double()  # [H, W, 2]
    face_index = torch.full((batch, height, width), -1, dtype=torch.int32, device=device)
    depth = torch.full((batch, height, width), math.inf, dtype=dtype, device=device)
    with torch.no_grad():
        for b in range(batch):
            for f, face in enumerate(_plain(faces).tolist()):
                corners = screen_vertices[b, face].double()  # [3, 3]
                if not bool(torch.isfinite(corners).all()) or bool((corners[:, 2] <= 0).any()):
                    continue
                area = _edge(corners[1, :2], corners[2, :2], corners[0, :2])
                winding = "clockwise" if area > 0 else "counterclockwise"  # on the screen, y down
                if area == 0 or cull == winding:
                    continue
                edges = (
                    torch.stack([_edge(corners[k - 2, :2], corners[k - 1, :2], pixels) for k in range(3)], -1)
                    * area.sign()
                )  # [H, W, 3]
                inside = (edges >= 0).all(-1)
                weights = edges / edges.sum(-1, keepdim=True)
                z = _perspective(weights, corners[:, 2])[1] if perspective_correct else _depth(weights, corners[:, 2])
                z = z.clamp(corners[:, 2].min(), corners[:, 2].max()).to(dtype)  # which rounding may leave
                nearer = inside & (z < depth[b])
                depth[b][nearer] = z[nearer]
                face_index[b][nearer] = f
    return _locate(screen_vertices, _plain(faces), face_index, perspective_correct)


def _edge(a: torch.Tensor, b: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Twice the signed area of a, b, p, from the end points in one order, so that both faces of an edge agree."""
    swap = tuple(a.tolist()) > tuple(b.tolist())
    if swap:
        a, b = b, a
    value = _cross(b - a, p - a)
    return -value if swap else value


def _depth(weights: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return z[..., 0] + weights[..., 1] * (z[..., 1] - z[..., 0]) + weights[..., 2] * (z[..., 2] - z[..., 0])


def _perspective(weights: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = weights / z
    inverse_depth = weights.sum(-1)
    return weights / inverse_depth[..., None], 1 / inverse_depth


def _locate(
    screen_vertices: torch.Tensor, faces: torch.Tensor, face_index: torch.Tensor, perspective_correct: bool
) -> Fragments:
    """Differentiable barycentrics and depth of the faces that were found."""
    b, y, x = (face_index >= 0).nonzero(as_tuple=True)
    corners = screen_vertices.double()[b[:, None], faces[face_index[b, y, x].long()]]  # [P, 3, 3]
    p = torch.stack([x, y], -1).double()
    v = corners[..., :2]
    weights = torch.stack([_cross(v[:, k - 1] - v[:, k - 2], p - v[:, k - 2]) for k in range(3)], -1)
    weights = weights / weights.sum(-1, keepdim=True)
    z = corners[..., 2]
    weights, depth = _perspective(weights, z) if perspective_correct else (weights, _depth(weights, z))
    zeros = screen_vertices.new_zeros(face_index.shape)
    return Fragments(
        face_index,
        zeros[..., None].repeat(1, 1, 1, 3).index_put((b, y, x), weights.to(zeros)),
        zeros.index_put((b, y, x), depth.to(zeros)),
    )


def interpolate(attributes: torch.Tensor, faces: torch.Tensor | Topology, fragments: Fragments) -> torch.Tensor:
    """Gathers the attributes of each pixel's face and weighs them."""
    batch = fragments.face_index.shape[0]
    item = torch.arange(batch, dtype=torch.int64, device=attributes.device)[:, None, None, None]
    corners = _plain(faces)[fragments.face_index.clamp(min=0).long()]  # [B, H, W, 3]
    values = attributes.expand(batch, -1, -1)[item, corners]  # [B, H, W, 3, C]
    values = (values * fragments.barycentric[..., None]).sum(3)
    return torch.where(fragments.face_index[..., None] >= 0, values, 0).permute(0, 3, 1, 2)


def render(
    screen_vertices: torch.Tensor,
    attributes: torch.Tensor,
    faces: torch.Tensor | Topology,
    image_size: tuple[int, int],
    *,
    cull: Cull = "none",
    perspective_correct: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`interpolate` after `rasterize`."""
    fragments = rasterize(screen_vertices, faces, image_size, cull=cull, perspective_correct=perspective_correct)
    mask = (fragments.face_index >= 0)[:, None].to(attributes)
    return interpolate(attributes, faces, fragments), mask, fragments.face_index


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor | Topology) -> torch.Tensor:
    """Scatters twice-area face normals to their vertices, and normalises."""
    faces = _plain(faces)
    a, b, c = (vertices[:, faces[:, k]] for k in range(3))
    normals = torch.linalg.cross(b - a, c - a)
    normals = torch.where(torch.isfinite(normals).all(-1, keepdim=True), normals, 0)
    sums = torch.zeros_like(vertices).index_add(1, faces.T.reshape(-1), normals.repeat(1, 3, 1))
    length = sums.square().sum(-1, keepdim=True)
    return torch.where(length > 0, sums / torch.where(length > 0, length, 1).sqrt(), 0)


def sh_basis(normals: torch.Tensor) -> torch.Tensor:
    """The nine real spherical harmonics of l <= 2 at unit normals `[..., 3]`, as `[..., 9]`."""
    x, y, z = normals.unbind(-1)
    k = [math.sqrt(n / (d * math.pi)) for n, d in ((1, 4), (3, 4), (15, 4), (5, 16), (15, 16))]
    return torch.stack(
        [
            torch.full_like(x, k[0]),
            -k[1] * y,
            k[1] * z,
            -k[1] * x,
            k[2] * x * y,
            -k[2] * y * z,
            k[3] * (3 * z * z - 1),
            -k[2] * x * z,
            k[4] * (x * x - y * y),
        ],
        -1,
    )


def sh_shading(normals: torch.Tensor, albedo: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Basis times coefficients times albedo."""
    return albedo * torch.einsum("bvi,bci->bvc", sh_basis(normals), coefficients)


def neighbor_min(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None = None, *, window: int = 3
) -> torch.Tensor:
    """The root of the smallest squared difference."""
    return _root(_squared_neighbor_min(target, reconstruction, mask, window))


def neighbor_min_loss(
    target: torch.Tensor,
    reconstruction: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    window: int = 3,
    power: Literal[1, 2] = 2,
    reduction: Literal["mean", "sum"] = "mean",
) -> torch.Tensor:
    """The map of distances, to the power, reduced."""
    squared = _squared_neighbor_min(target, reconstruction, mask, window)
    total = (squared if power == 2 else _root(squared)).sum()
    return total / max(squared.numel(), 1) if reduction == "mean" else total


def _squared_neighbor_min(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None, window: int
) -> torch.Tensor:
    """Compares the target with every shifted copy of the reconstruction, in row-major order of the shifts."""
    _, _, height, width = target.shape
    mask = torch.ones_like(target[:, :1]) if mask is None else _planes(mask)
    margin = [window // 2] * 4
    target, reconstruction = mask * target, torch.nn.functional.pad(mask * reconstruction, margin)
    in_image = torch.nn.functional.pad(torch.ones_like(target[:, 0], dtype=torch.bool), margin)
    nearest = torch.full_like(target[:, 0], math.inf)
    for y in range(window):
        for x in range(window):
            shifted = reconstruction[..., y : y + height, x : x + width]
            squared = (target - shifted).square().sum(1)
            nearer = (squared < nearest) | (squared.isnan() & ~nearest.isnan())
            nearest = torch.where(nearer & in_image[:, y : y + height, x : x + width], squared, nearest)
    return nearest


def masked_photometric_loss(target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum of distances over sum of weights."""
    mask = _planes(mask)
    distance = _root((mask * (target - reconstruction)).square().sum(1))
    weight = mask.sum()
    return distance.sum() / torch.where(weight < 1, 1, weight)  # at 1 the gradient is that of the sum


def outlier_robust_loss(
    target: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor, *, sigma: float = 0.043, cutoff: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian log-likelihood of the pixels below the cutoff."""
    mask = _planes(mask)
    squared = (target - reconstruction).square().sum(1, keepdim=True)
    constant = -target.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))
    inlier = mask * (squared < (cutoff * sigma) ** 2).to(mask)
    log_likelihood = constant - squared / (2 * sigma**2)
    return -(inlier * log_likelihood).sum() / max(mask.numel(), 1), inlier.detach()


def _planes(mask: torch.Tensor) -> torch.Tensor:
    """A mask `[B, H, W]` or `[B, 1, H, W]` as the latter."""
    return mask.unsqueeze(1) if mask.dim() == 3 else mask


def _root(squared: torch.Tensor) -> torch.Tensor:
    """Square root with the subgradient 0 at 0, where that of torch is infinite."""
    positive = torch.where(squared == 0, 1, squared)
    return torch.where(squared == 0, 0, positive.sqrt())


def antialias(
    image: torch.Tensor, screen_vertices: torch.Tensor, faces: torch.Tensor | Topology, face_index: torch.Tensor
) -> torch.Tensor:
    """Every pair of neighbours, one at a time; what is left of a pixel along x and along y is multiplied."""
    dtype = image.dtype
    corners, index = _plain(faces).tolist(), face_index.tolist()
    sharing: dict[frozenset[int], list[int]] = {}
    for f, face in enumerate(corners):
        for edge in {frozenset((face[k - 2], face[k - 1])) for k in range(3)}:
            sharing.setdefault(edge, []).append(f)
    batch, height, width = face_index.shape
    image = image.double()
    pulls = image.new_zeros(2, *image.shape)  # what the neighbours of a pixel along each axis add to it
    shares = image.new_zeros(2, batch, 1, height, width)  # their shares in it, together
    for b in range(batch):
        vertices = screen_vertices[b].double()
        points = vertices.tolist()
        for y, x, axis in ((y, x, axis) for y in range(height) for x in range(width) for axis in range(2)):
            first, second = (x, y), (x + 1 - axis, y + axis)
            if second[0] >= width or second[1] >= height:
                continue
            shown = [index[b][pixel[1]][pixel[0]] for pixel in (first, second)]
            outline = _outline(points, corners, sharing, shown, (first, second), axis)
            if outline is None:
                continue
            start, way = vertices[outline[0]], vertices[outline[1]] - vertices[outline[0]]
            if (abs(way[0]) > abs(way[1])) if axis == 0 else (abs(way[0]) <= abs(way[1])):
                continue
            w = (first[1 - axis] - start[1 - axis]) / way[1 - axis]
            rest = (start[1 - axis] + way[1 - axis] - first[1 - axis]) / way[1 - axis]
            end = vertices[outline[1]]
            crossing = start[axis] + w * way[axis] if abs(w) <= abs(rest) else end[axis] - rest * way[axis]
            share = crossing - first[axis] - 0.5
            share = share + (share.clamp(-0.5, 0.5) - share).detach()  # outside by rounding only
            (x1, y1), (x2, y2) = (second, first) if share > 0 else (first, second)  # the pixel that changes first
            share = torch.where(share > 0, share, -share)
            pulls[axis, b, :, y1, x1] += share * (image[b, :, y2, x2] - image[b, :, y1, x1])
            shares[axis, b, 0, y1, x1] += share
    return (image + (pulls * (1 - shares.flip(0) / 2)).sum(0)).to(dtype)


def _outline(
    points: list[list[float]],
    faces: list[list[int]],
    sharing: dict[frozenset[int], list[int]],
    shown: list[int],
    pair: tuple[Pixel, Pixel],
    axis: int,
) -> tuple[int, int] | None:
    """The edge between two pixels at which the surface of one ends; that of the nearer, where both do."""
    ends = []
    if shown[0] == shown[1]:
        return None
    for own, other in ((0, 1), (1, 0)):
        if shown[own] >= 0:
            edge = _follow(points, faces, sharing, shown[own], shown[other], pair[own], pair[other], axis)
            if edge == "arrived":
                return None
            corners = torch.tensor([points[v] for v in faces[shown[own]]], dtype=torch.float64, device="cpu")
            ends.append((edge is None, _depth_at(corners, pair[own]), shown[own], edge))
    edge = min(ends, key=lambda end: end[:3])[3]
    return None if edge is None else (edge[0], edge[1])


def _follow(
    points: list[list[float]],
    faces: list[list[int]],
    sharing: dict[frozenset[int], list[int]],
    face: int,
    target: int,
    p: Pixel,
    n: Pixel,
    axis: int,
) -> tuple[int, int] | Literal["arrived"] | None:
    """From pixel p, which shows `face`, through one face after another to pixel n, which shows `target`."""

    def side(upper: int, lower: int, point: Sequence[float]) -> float:
        """> 0 where a point lies beyond an edge that the way from p to n crosses, < 0 before it."""
        way, to = ([end[i] - points[upper][i] for i in (axis, 1 - axis)] for end in (points[lower], point))
        return (n[axis] - p[axis]) * (way[1] * to[0] - way[0] * to[1])

    edge: tuple[int, int] | None = None
    level_is_below = all(points[v][1 - axis] <= p[1 - axis] for v in faces[face])
    for _ in range(64):
        heights = [points[v][1 - axis] - p[1 - axis] for v in faces[face]]
        below = [height > 0 or (level_is_below and height == 0) for height in heights]
        came_from, edge = edge, None
        for k in range(3):
            if below[k - 2] != below[k - 1]:
                a, b = sorted((faces[face][k - 2], faces[face][k - 1]), key=lambda v: points[v][1 - axis])
                leaves = side(a, b, points[faces[face][k]]) < 0 if came_from is None else {a, b} != set(came_from)
                edge = (a, b) if leaves else edge
        if edge is None or not side(*edge, n) >= 0:
            return None
        flat: list[int] = []
        beyond: list[int] = []
        others = sharing[frozenset(edge)]
        for other in (*(f for f in others if f > face), *(f for f in others if f < face)):
            apex = points[next((v for v in faces[other] if v not in edge), edge[0])]
            if len(set(faces[other])) == 3 and math.isfinite(sum(apex)) and apex[2] > 0 and side(*edge, apex) >= 0:
                (beyond if side(*edge, apex) > 0 else flat).append(other)
        if not beyond and not flat:
            return edge
        face = target if target in beyond else (beyond or flat)[0]
        if face == target:
            return "arrived"
    return None


def _depth_at(face: torch.Tensor, pixel: Pixel) -> float:
    point = face.new_tensor(pixel)
    edges = [_cross(face[k - 1, :2] - face[k - 2, :2], point - face[k - 2, :2]) for k in range(3)]
    weights = torch.stack(edges)
    return float(_depth(weights / weights.sum(), face[:, 2]))
