"""Meshes on the screen for the benchmarks, and the cases made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from _harness import Case, Results

from focus import ops

IMAGE = 224
STANDARD_VERTICES, STANDARD_FACES = 35_709, 70_789  # the Basel face model's face region


@dataclass(frozen=True)
class Mesh:
    """`vertices` [B, V, 3]: x, y in pixels, depth in mm; `faces` [F, 3], counterclockwise in front; square image."""

    vertices: torch.Tensor
    faces: torch.Tensor
    image: int

    @property
    def size(self) -> str:
        return f"{self.vertices.shape[0]} x {self.faces.shape[0]:,} faces, {self.image} px"

    def random(self, device: torch.device, *shape: int) -> torch.Tensor:
        """The same numbers on every device."""
        return torch.rand(self.vertices.shape[0], *shape, generator=torch.Generator().manual_seed(0)).to(device)

    def topology(self, device: torch.device) -> ops.Topology:
        return ops.Topology(self.faces, self.vertices.shape[1]).to(device)


Run = Callable[[], Results]
Work = Callable[[Any, Mesh, torch.device], tuple[Results, Run]]
"""From `ops` or `ops.reference`, a mesh and a device: what is read, and what does the work and returns the results."""


def head(rows: int, around: int, batch: int = 1, image: int = IMAGE) -> Mesh:
    """A wavy ellipsoid, front and back, over about 55% of the image; each item of a batch is a little moved."""
    v = torch.linspace(0.02, 0.98, rows)[:, None]
    u = (torch.arange(around) / around)[None, :]
    polar, angle = torch.pi * v, 2 * torch.pi * u
    radius = 1 + 0.03 * torch.sin(7 * angle) * torch.sin(9 * polar)
    x = 0.80 * image / 2 * radius * polar.sin() * angle.cos() + (image - 1) / 2
    y = 0.88 * image / 2 * radius * polar.cos() + (image - 1) / 2
    z = 1000 - 100 * radius * polar.sin() * angle.sin()
    corner = (torch.arange(rows - 1)[:, None] * around + torch.arange(around)).flatten()
    right = torch.where(corner % around == around - 1, corner + 1 - around, corner + 1)
    upper = torch.stack([corner, corner + around, right], -1)
    lower = torch.stack([right, corner + around, right + around], -1)
    faces = torch.stack([upper, lower], 1).reshape(-1, 3)
    return Mesh(_moved(torch.stack([x, y, z], -1).reshape(-1, 3), batch), faces, image)


def standard(batch: int = 1, image: int = IMAGE) -> Mesh:
    """A head of exactly 35,709 vertices and 70,789 faces: 114 rings of 313, 27 faces split in three, 3 left out."""
    mesh = head(114, 313, 1, image)
    split = STANDARD_VERTICES - mesh.vertices.shape[1]
    chosen = torch.linspace(0, mesh.faces.shape[0] - 1, split).long()
    kept = torch.ones(mesh.faces.shape[0], dtype=torch.bool)
    kept[chosen] = False
    a, b, c = mesh.faces[chosen].T
    middle = mesh.vertices.shape[1] + torch.arange(split)
    parts = [torch.stack(part, -1) for part in ((a, b, middle), (b, c, middle), (c, a, middle))]
    faces = torch.cat([mesh.faces[kept], *parts])[-STANDARD_FACES:]
    centres = mesh.vertices[0, mesh.faces[chosen]].mean(1)
    return Mesh(_moved(torch.cat([mesh.vertices[0], centres]), batch), faces, image)


def reduced(batch: int = 1) -> Mesh:
    """What the rasterizer's twin, one face after another in Python, does in about a second."""
    return head(30, 32, batch, 64)


def quad(image: int) -> Mesh:
    """Two faces over the whole image."""
    low, high = -1.0, float(image)
    vertices = torch.tensor([[low, low, 900.0], [low, high, 1000.0], [high, low, 1000.0], [high, high, 1100.0]])
    return Mesh(vertices[None], torch.tensor([[0, 1, 2], [2, 1, 3]]), image)


def slivers(count: int, image: int = IMAGE) -> Mesh:
    """Triangles from one side of the image to the other, at all angles, half a pixel wide."""
    angle = torch.pi * torch.arange(count) / count
    along = torch.stack([angle.cos(), angle.sin()], -1) * image / 2
    across = torch.stack([-angle.sin(), angle.cos()], -1) * 0.25
    middle = (image - 1) / 2 + 8 * torch.stack([(37 * angle).cos(), (37 * angle).sin()], -1)
    points = torch.stack([middle - along - across, middle + along, middle - along + across], 1)
    depth = 1000 + torch.arange(count, dtype=torch.float32)[:, None, None].expand(-1, 3, 1) / count
    vertices = torch.cat([points, depth], -1).reshape(1, -1, 3).contiguous()
    return Mesh(vertices, torch.arange(3 * count).reshape(-1, 3), image)


def _moved(vertices: torch.Tensor, batch: int) -> torch.Tensor:
    return vertices + 0.37 * torch.arange(batch)[:, None, None]


def mesh_case(
    name: str,
    work: Work,
    mesh: Mesh,
    device: torch.device,
    *,
    twin: ModuleType | None = ops.reference,
    small: Mesh | None = None,
    exact: int = 0,
    axis: str = "",
    amount: int = 0,
) -> Case:
    """The work on a mesh; `small` is the mesh for the twin, where the twin would take too long on this one.

    On CUDA the results on the whole mesh must also be those of the CPU kernels, the first `exact` ones in every bit.
    """
    inputs, ours = work(ops, mesh, device)
    return Case(
        name=name,
        size=mesh.size,
        ours=ours,
        twin=work(twin, mesh, device)[1] if twin and small is None else None,
        moved=sum(tensor.nbytes for tensor in (*inputs, mesh.faces.int(), *ours())),
        reduced=None if small is None else mesh_case(name, work, small, device, twin=twin),
        on_cpu=work(ops, mesh, torch.device("cpu"))[1] if device.type == "cuda" else None,
        exact=exact,
        axis=axis,
        amount=amount,
    )


def pair(
    name: str,
    forward: Work,
    both: Work,
    device: torch.device,
    quick: bool,
    *,
    slow_twin: bool = False,
    exact: int = 0,
) -> list[Case]:
    """Forward, and forward + backward, on the standard mesh, one of it and twelve."""
    return [
        mesh_case(
            f"{name}, {kind}",
            work,
            head(6, 8, batch, 16) if quick else standard(batch),
            device,
            small=(head(6, 8, 1, 16) if quick else reduced()) if slow_twin else None,
            exact=exact,
        )
        for kind, work in (("forward", forward), ("forward + backward", both))
        for batch in (1, 12)
    ]
